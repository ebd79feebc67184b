"""Router saturation: how much of the routing of one checkpoint is that of another, on the same tokens.

(Muennighoff et al. 2024, arXiv 2409.02060)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float64, Int64, Integer
from torch import Tensor

from moe_toy.errors import UserError
from moe_toy.metrics.activation import activation_mask, or_beyond
from moe_toy.metrics.base import RoutingMetric
from moe_toy.routing import RoutingTrace


@dataclass(frozen=True)
class SaturationScores:
    """Mean share, in [0, 1], of a token's experts that both traces chose; top_k / num_experts by chance."""

    layer: Float64[Tensor, " layer"]
    model: Float64[Tensor, ""]


def shared_choices(
    expert_ids: Integer[Tensor, "layer batch seq k"],
    reference_ids: Integer[Tensor, "layer batch seq k"],
    num_experts: int,
) -> Int64[Tensor, " layer"]:
    """How many choices, over all tokens, the two have in common; -1 is none. Order within a token does not matter."""
    chosen = F.pad(activation_mask(reference_ids, num_experts), (0, 1))  # nobody chose none
    return chosen.gather(-1, or_beyond(expert_ids, num_experts)).flatten(1).sum(-1)


class Saturation(RoutingMetric):
    """Saturation of traces against reference traces of the same tokens."""

    shared: Int64[Tensor, " layer"]
    choices: Int64[Tensor, " layer"]

    def __init__(self, *, num_layers: int, num_experts: int) -> None:
        super().__init__(num_layers=num_layers, num_experts=num_experts)
        self.add_count("shared", num_layers)
        self.add_count("choices", num_layers)

    def update(self, trace: RoutingTrace, reference: RoutingTrace) -> None:
        self.check(trace)
        self.check(reference)
        if (trace.layer_ids, trace.expert_ids.shape) != (reference.layer_ids, reference.expert_ids.shape) or (
            trace.token_ids is None
            or reference.token_ids is None
            or not torch.equal(trace.token_ids.long(), reference.token_ids.to(trace.token_ids.device).long())
        ):
            raise UserError(
                "saturation compares the routing of the same tokens in the same layers, but the two traces hold others "
                "or unknown ones; run both checkpoints on the same batch"
            )
        reference_ids = reference.expert_ids.to(trace.expert_ids.device)
        self.shared += shared_choices(trace.expert_ids, reference_ids, self.num_experts)
        self.choices += (trace.expert_ids.long() >= 0).flatten(1).sum(-1)

    def compute(self) -> SaturationScores:
        return SaturationScores(
            layer=self.shared / self.choices.double(), model=self.shared.sum() / self.choices.sum().double()
        )
