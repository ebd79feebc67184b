"""What every load-balancing scheme offers to the model; this base class is the scheme "none"."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor, nn

from moe_toy.routing import Routing


@dataclass(frozen=True)
class BalanceLoss:
    objective: Float[Tensor, ""]
    """What to add to the training objective, coefficient included."""
    terms: dict[str, Tensor] = field(default_factory=dict)
    """Detached values for logging, before the coefficient, mean over layers."""
    batch_counts: Int[Tensor, "layer expert"] | None = None
    """Assignments of the whole optimiser step, as far as the scheme knows them; None where it looks no further than
    this micro-batch."""


class LoadBalancer(nn.Module):
    """One per model, not per layer, so that its state is one (layer, expert) tensor and one sum over ranks."""

    looks_ahead = False
    """Whether `foresee` must be told the routing of a whole optimiser step before its first micro-batch."""

    def __init__(self, *, num_layers: int, num_experts: int) -> None:
        super().__init__()
        self.num_layers, self.num_experts = num_layers, num_experts

    @property
    def selection_bias(self) -> Float[Tensor, "layer expert"] | None:
        """Added to the scores when experts are chosen, never to their weights."""
        return None

    def foresee(self, micro_batches: Iterable[Int[Tensor, "layer batch seq k"]]) -> None:
        """The expert ids of all micro-batches that this rank will process in the coming optimiser step."""

    def loss(self, routings: list[Routing]) -> BalanceLoss:
        """The loss of one micro-batch, given the routing of each MoE layer."""
        return BalanceLoss(routings[0].logits.new_zeros(()))

    def after_optimizer_step(self) -> dict[str, Tensor]:
        """Called once per optimiser step, after all of its micro-batches; returns values for logging."""
        return {}
