"""Train small Mixture-of-Experts language models and watch where their tokens go."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moe_toy.evaluation.notebook import evaluate as evaluate


def __getattr__(name: str) -> Any:
    """`from moe_toy import evaluate`, without its heavy imports for everybody else."""
    if name == "evaluate":
        from moe_toy.evaluation.notebook import evaluate

        return evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
