"""Counting assignments: of any group of tokens, and of a whole optimiser step."""

import torch
from jaxtyping import Int
from torch import Tensor, nn


def assignment_counts(expert_ids: Int[Tensor, "*group token k"], num_experts: int) -> Int[Tensor, "*group expert"]:
    """How often each expert is chosen within each group of tokens."""
    flat = expert_ids.flatten(-2)
    counts = flat.new_zeros(*flat.shape[:-1], num_experts)
    return counts.scatter_add_(-1, flat, torch.ones_like(flat))


class StepCounts(nn.Module):
    """Assignments per (layer, expert) of this rank since the last optimiser step."""

    def __init__(self, num_layers: int, num_experts: int) -> None:
        super().__init__()
        # Not saved: a checkpoint is written between optimiser steps, when the counts are zero.
        self.register_buffer("total", torch.zeros(num_layers, num_experts, dtype=torch.int64), persistent=False)

    def add(self, counts: Int[Tensor, "layer expert"]) -> None:
        self.total = self.total + counts

    def clear(self) -> None:
        self.total = torch.zeros_like(self.total)
