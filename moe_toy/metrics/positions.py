"""Position-wise SRP: one score per start position of the segment, each with its own best threshold.

(Liang et al. 2025, arXiv 2505.16056)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, reduce
from jaxtyping import Float64, Int64, Integer
from torch import Tensor

from moe_toy.errors import UserError
from moe_toy.metrics.activation import SEGMENT_LENGTH, check_segment_length, segment_counts
from moe_toy.metrics.base import RoutingMetric
from moe_toy.metrics.srp import SegmentScores, segment_scores
from moe_toy.routing import RoutingTrace


@dataclass(frozen=True)
class PositionScores:
    center: Int64[Tensor, " segment"]
    """Token in the middle of each segment: start + segment_length // 2."""
    model: SegmentScores  # (segment,)
    layer: SegmentScores  # (layer, segment)
    model_by_domain: SegmentScores  # (domain, segment)
    spread: Float64[Tensor, ""]
    """Sample standard deviation of the model's SRP over start positions; NaN with fewer than two."""


def position_histogram(
    expert_ids: Integer[Tensor, "layer batch seq k"], num_experts: int, segment_length: int
) -> Int64[Tensor, "layer batch segment bins"]:
    """How many experts are used 0, 1, ... `segment_length` times in the segment that starts at each position."""
    layers = []
    for ids in expert_ids:  # one at a time: the counts of all segments are large
        uses = segment_counts(ids, num_experts, segment_length)
        histogram = uses.new_zeros(*uses.shape[:2], segment_length + 1)
        layers.append(histogram.scatter_add_(-1, uses, torch.ones_like(uses)))
    return torch.stack(layers)


class PositionSRP(RoutingMetric):
    """Position-wise SRP of sequences of `seq_len` tokens."""

    histogram: Int64[Tensor, "domain layer segment bins"]

    def __init__(
        self,
        *,
        num_layers: int,
        num_experts: int,
        seq_len: int,
        num_domains: int = 1,
        segment_length: int = SEGMENT_LENGTH,
    ) -> None:
        super().__init__(num_layers=num_layers, num_experts=num_experts, num_domains=num_domains)
        check_segment_length(segment_length)
        if segment_length > seq_len:
            raise UserError(f"segment_length ({segment_length}) exceeds seq_len ({seq_len}); choose shorter segments")
        self.seq_len = seq_len
        self.segment_length = segment_length
        self.add_count("histogram", num_domains, num_layers, seq_len - segment_length + 1, segment_length + 1)

    def update(self, trace: RoutingTrace) -> None:
        domains = self.domains_of(trace)
        if trace.expert_ids.shape[2] != self.seq_len:
            raise UserError(
                f"PositionSRP was made for sequences of {self.seq_len} tokens, but the trace has "
                f"{trace.expert_ids.shape[2]}; make it with seq_len={trace.expert_ids.shape[2]}"
            )
        histogram = position_histogram(trace.expert_ids, self.num_experts, self.segment_length)
        histogram = rearrange(histogram, "layer batch segment bins -> batch layer segment bins")
        self.histogram.index_add_(0, domains, histogram)

    def compute(self) -> PositionScores:
        by_domain = reduce(self.histogram, "domain layer segment bins -> domain segment bins", "sum")
        model = segment_scores(by_domain.sum(0))
        starts = torch.arange(by_domain.shape[1], device=by_domain.device)
        return PositionScores(
            center=starts + self.segment_length // 2,
            model=model,
            layer=segment_scores(self.histogram.sum(0)),
            model_by_domain=segment_scores(by_domain),
            spread=model.srp.std(correction=1) if len(starts) > 1 else torch.full_like(model.srp[0], torch.nan),
        )
