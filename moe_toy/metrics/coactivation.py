"""Co-activation: how often two experts serve the same token.

(Muennighoff et al. 2024, arXiv 2409.02060)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64, Integer
from torch import Tensor

from moe_toy.metrics.activation import or_beyond
from moe_toy.metrics.base import RoutingMetric
from moe_toy.routing import RoutingTrace


@dataclass(frozen=True)
class CoActivationScores:
    pairs: Int64[Tensor, "layer expert expert"]
    """Tokens that activate both experts; on the diagonal, tokens that activate the expert."""
    conditional: Float64[Tensor, "layer expert expert"]
    """Share of the tokens of expert i that also activate expert j, in [0, 1]; the row of a dead expert is NaN."""


def expert_pairs(
    expert_ids: Integer[Tensor, "layer batch seq k"], num_experts: int
) -> Int64[Tensor, "layer {num_experts} {num_experts}"]:
    """How many tokens activate each pair of experts."""
    places = num_experts + 1  # the last one takes -1, which is none
    pairs = torch.zeros(len(expert_ids), places**2, dtype=torch.int64, device=expert_ids.device)
    for counts, layer in zip(pairs, expert_ids, strict=True):
        ids = or_beyond(layer.flatten(0, 1), num_experts)
        cell = (ids[:, :, None] * places + ids[:, None, :]).flatten()
        counts.scatter_add_(0, cell, torch.ones_like(cell))
    return pairs.view(-1, places, places)[:, :-1, :-1]


class CoActivation(RoutingMetric):
    """Co-activation of all pairs of experts of a layer, over everything."""

    pairs: Int64[Tensor, "layer expert expert"]

    def __init__(self, *, num_layers: int, num_experts: int) -> None:
        super().__init__(num_layers=num_layers, num_experts=num_experts)
        self.add_count("pairs", num_layers, num_experts, num_experts)

    def update(self, trace: RoutingTrace) -> None:
        self.check(trace)
        self.pairs += expert_pairs(trace.expert_ids, self.num_experts)

    def compute(self) -> CoActivationScores:
        tokens = self.pairs.diagonal(dim1=-2, dim2=-1).double()
        return CoActivationScores(pairs=self.pairs.clone(), conditional=self.pairs / tokens[..., None])
