"""What every load-balancing scheme offers to the model; this base class is the scheme "none"."""

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


class LoadBalancer(nn.Module):
    """One per model, not per layer, so that its state is one (layer, expert) tensor and one sum over ranks."""

    def __init__(self, *, num_layers: int, num_experts: int) -> None:
        super().__init__()
        self.num_layers, self.num_experts = num_layers, num_experts

    @property
    def selection_bias(self) -> Float[Tensor, "layer expert"] | None:
        """Added to the scores when experts are chosen, never to their weights."""
        return None

    def loss(self, routings: list[Routing]) -> BalanceLoss:
        """The loss of one micro-batch, given the routing of each MoE layer."""
        return BalanceLoss(routings[0].logits.new_zeros(()))

    def after_optimizer_step(self) -> None:
        """Called once per optimiser step, after all of its micro-batches."""


def assignment_counts(expert_ids: Int[Tensor, "*group token k"], num_experts: int) -> Int[Tensor, "*group expert"]:
    """How often each expert is chosen within each group of tokens."""
    flat = expert_ids.flatten(-2)
    counts = flat.new_zeros(*flat.shape[:-1], num_experts)
    return counts.scatter_add_(-1, flat, torch.ones_like(flat))


class StepCounts(nn.Module):
    """Assignments per (layer, expert) since the last optimiser step, over all ranks and micro-batches."""

    def __init__(self, num_layers: int, num_experts: int) -> None:
        super().__init__()
        # Not saved: a checkpoint is written between optimiser steps, when the counts are zero.
        self.register_buffer("total", torch.zeros(num_layers, num_experts, dtype=torch.int64), persistent=False)

    def add(self, counts: Int[Tensor, "layer expert"]) -> None:
        self.total = self.total + counts

    def clear(self) -> None:
        self.total = torch.zeros_like(self.total)
