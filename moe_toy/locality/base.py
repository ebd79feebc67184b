"""What every locality scheme offers to the model; this base class is the scheme "none"."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from moe_toy.routing import Routing


@dataclass(frozen=True)
class LocalityLoss:
    objective: Float[Tensor, ""]
    """What to add to the training objective, coefficient included."""
    terms: dict[str, Tensor] = field(default_factory=dict)
    """Detached values for logging, before the coefficient, mean over layers."""


Steer = Callable[
    [Float[Tensor, "batch seq expert"], Float[Tensor, "batch seq expert"], int], Float[Tensor, "batch seq expert"]
]
"""From how the experts of a layer rank, their scores and `top_k` to how they rank instead. An expert at -inf is left
out; `top_k` of them stay at least."""


class LocalityScheme(nn.Module):
    """One per model. It has no state and no parameters.

    A scheme is a loss, which only training knows, or a limit to what a token may choose. A limit is part of the model:
    evaluation and decoding obey it too, so its `settings` are kept in checkpoints.
    """

    @property
    def settings(self) -> dict[str, Any]:
        """Of a limit, its name as `scheme` and its arguments: plain values. Nothing of a loss."""
        return {}

    def check(self, *, num_experts: int, top_k: int) -> None:
        """Raise `UserError` if the settings do not fit a model with so many experts, `top_k` of them active."""

    def loss(
        self, routings: list[Routing], batch_counts: Int[Tensor, "layer expert"] | None = None
    ) -> LocalityLoss | None:
        """The loss of one micro-batch, or None where the scheme has none.

        `routings` holds the decision of each MoE layer. `batch_counts` are the assignments of the whole optimiser step
        as far as the balancing scheme knows them; without it, a scheme takes this micro-batch for the batch.
        """
        return None

    def steer(self, token_ids: Int[Tensor, "batch seq"]) -> Steer | None:
        """How the choices of these sequences are limited, layer by layer, or None where they are free."""
        return None
