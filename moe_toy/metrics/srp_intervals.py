"""Confidence intervals of SRP."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import reduce
from jaxtyping import Float64, Int64
from torch import Tensor

from moe_toy.metrics.activation import SEGMENT_LENGTH, check_segment_length, segment_histogram
from moe_toy.metrics.base import RoutingMetric
from moe_toy.metrics.bootstrap import Interval, Resampler, add_resampled, basic_interval
from moe_toy.metrics.srp import segment_scores
from moe_toy.routing import RoutingTrace


@dataclass(frozen=True)
class SRPIntervals:
    """Bounds of the fields of `SRPScores` with the same name. NaN with fewer than two sequences that hold a
    segment."""

    model: Interval
    layer: Interval
    model_by_domain: Interval
    layer_by_domain: Interval
    expert: Interval | None = None
    expert_by_domain: Interval | None = None


class SRPBootstrap(RoutingMetric):
    """Intervals of SRP at model and layer level, and with `experts=True` at expert level.

    State is (domain, resample, layer, 1 or expert, bins) in float64: at 11 domains, 1000 resamples, 8 layers and
    segments of 256 tokens 180 MB, and 64 times that with `experts=True`, which is for short segments.
    """

    histogram: Int64[Tensor, "domain layer row bins"]
    resampled: Float64[Tensor, "domain resample layer row bins"]
    sequences: Int64[Tensor, " domain"]
    draws: Float64[Tensor, "domain resample"]

    def __init__(
        self,
        *,
        num_layers: int,
        num_experts: int,
        resampler: Resampler,
        num_domains: int = 1,
        segment_length: int = SEGMENT_LENGTH,
        experts: bool = False,
    ) -> None:
        super().__init__(num_layers=num_layers, num_experts=num_experts, num_domains=num_domains)
        check_segment_length(segment_length)
        self.segment_length = segment_length
        self.resampler = resampler
        self.experts = experts
        cells = num_layers, num_experts if experts else 1, segment_length + 1
        self.add_count("histogram", num_domains, *cells)
        self.add_count("resampled", num_domains, resampler.num_resamples, *cells, dtype=torch.float64)
        self.add_count("sequences", num_domains)
        self.add_count("draws", num_domains, resampler.num_resamples, dtype=torch.float64)

    def update(self, trace: RoutingTrace) -> None:
        domains = self.domains_of(trace)
        weights = self.resampler(trace, domains)
        if trace.sequence_length < self.segment_length:
            return
        batch = len(domains)
        histogram = segment_histogram(
            trace.expert_ids,
            self.num_experts,
            self.segment_length,
            torch.arange(batch, device=domains.device),
            batch,
            pool_experts=not self.experts,
        )
        self.histogram.index_add_(0, domains, histogram)
        self.sequences.index_add_(0, domains, torch.ones_like(domains))
        add_resampled(self.resampled, histogram, weights, domains)
        add_resampled(self.draws[..., None], torch.ones_like(domains)[:, None], weights, domains)

    def compute(self) -> SRPIntervals:
        # A resample may draw more or fewer sequences of a domain than there are: scale it back.
        scale = self.sequences[:, None] / self.draws
        domains = range(self.num_domains)
        resampled = [self.resampled[d] * scale[d, :, None, None, None] for d in domains]  # (resample, layer, row, bins)
        pooled = sum(part.nan_to_num(0.0) for part in resampled)
        overall = self._intervals(self.histogram.sum(0), pooled, self.sequences.sum())
        by_domain = [self._intervals(self.histogram[d], resampled[d], self.sequences[d]) for d in domains]
        stacked = {
            f"{level}_by_domain": Interval(
                low=torch.stack([intervals[level].low for intervals in by_domain]),
                high=torch.stack([intervals[level].high for intervals in by_domain]),
            )
            for level in overall
        }
        return SRPIntervals(**overall, **stacked)

    def _intervals(
        self,
        histogram: Int64[Tensor, "layer row bins"],
        resampled: Float64[Tensor, "resample layer row bins"],
        sequences: Tensor,
    ) -> dict[str, Interval]:
        pools = {"model": "bins", "layer": "layer bins", "expert": "layer row bins"}
        if not self.experts:
            del pools["expert"]
        intervals = {}
        for level, pool in pools.items():
            estimate = segment_scores(reduce(histogram, f"layer row bins -> {pool}", "sum")).srp
            estimate = estimate.where(sequences > 1, torch.nan)  # one sequence shows no spread
            replicates = segment_scores(reduce(resampled, f"resample layer row bins -> resample {pool}", "sum")).srp
            intervals[level] = basic_interval(estimate, replicates.movedim(0, -1), self.resampler.confidence)
        return intervals
