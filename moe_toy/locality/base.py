"""What every locality scheme offers to the model; this base class is the scheme "none"."""

from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor, nn

from moe_toy.routing import Routing


@dataclass(frozen=True)
class LocalityLoss:
    objective: Float[Tensor, ""]
    """What to add to the training objective, coefficient included."""
    terms: dict[str, Tensor] = field(default_factory=dict)
    """Detached values for logging, before the coefficient, mean over layers."""


class LocalityScheme(nn.Module):
    """One per model. It has no state and no parameters, so checkpoints of models with and without it are alike."""

    def loss(
        self, routings: list[Routing], batch_counts: Int[Tensor, "layer expert"] | None = None
    ) -> LocalityLoss | None:
        """The loss of one micro-batch, or None where the scheme has none.

        `routings` holds the decision of each MoE layer. `batch_counts` are the assignments of the whole optimiser step
        as far as the balancing scheme knows them; without it, a scheme takes this micro-batch for the batch.
        """
        return None
