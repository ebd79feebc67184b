"""What every locality scheme offers to the model; this base class is the scheme "none"."""

from collections.abc import Callable
from dataclasses import dataclass, field

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from moe_toy.routing import Routing


@dataclass(frozen=True)
class LocalityLoss:
    objective: Float[Tensor, ""]
    """What to add to the training objective, coefficient included."""
    terms: dict[str, Tensor] = field(default_factory=dict)
    """Detached values for logging, before the coefficient, mean over layers."""


Allow = Callable[
    [Float[Tensor, "batch seq expert"], Float[Tensor, "batch seq expert"], int], Bool[Tensor, "batch seq expert"]
]
"""From how experts rank, their scores and `top_k` to the experts that each token may use, `top_k` of them at least."""


class LocalityScheme(nn.Module):
    """One per model. It has no state and no parameters, so checkpoints of models with and without it are alike.

    A scheme is a loss, which only training knows, or a limit to what a token may choose, which is part of the model:
    evaluation and decoding obey it too.
    """

    def loss(
        self, routings: list[Routing], batch_counts: Int[Tensor, "layer expert"] | None = None
    ) -> LocalityLoss | None:
        """The loss of one micro-batch, or None where the scheme has none.

        `routings` holds the decision of each MoE layer. `batch_counts` are the assignments of the whole optimiser step
        as far as the balancing scheme knows them; without it, a scheme takes this micro-batch for the batch.
        """
        return None

    def limit(self, token_ids: Int[Tensor, "batch seq"]) -> Allow | None:
        """What these sequences may choose in each MoE layer, or None where they choose freely."""
        return None
