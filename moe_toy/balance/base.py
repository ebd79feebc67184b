"""What every load-balancing scheme offers to the model; this base class is the scheme "none"."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
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


class PreciseBuffers(nn.Module):
    """Its floating-point buffers keep at least fp32 under `.to(dtype)`, `.half()`, `.bfloat16()`; devices do move them.

    Sums of many small changes, and angles of thousands of positions, need more than the three digits of bf16.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        before = {name: x for name, x in self._buffers.items() if x is not None and x.is_floating_point()}
        super()._apply(fn, recurse)
        for name, precise in before.items():
            now = self._buffers[name]
            dtype = torch.promote_types(now.dtype, torch.float32)
            if now.dtype != dtype:
                self._buffers[name] = precise.to(now.device, dtype)
        return self


class LoadBalancer(PreciseBuffers):
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
