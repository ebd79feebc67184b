"""Segment routing best performance (SRP): how well one fixed set of experts could serve a whole segment.

(Liang et al. 2025, arXiv 2505.16056)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import reduce
from jaxtyping import Float64, Int64
from torch import Tensor

from moe_toy.metrics.activation import SEGMENT_LENGTH, check_segment_length, segment_histogram
from moe_toy.metrics.base import RoutingMetric
from moe_toy.routing import RoutingTrace


@dataclass(frozen=True)
class SegmentScores:
    """The best segment router of each pool. NaN where a pool holds no segment (sequences shorter than one)."""

    srp: Float64[Tensor, "*pool"]
    """F1 in [0, 1] against the real router; never below 2r / (1 + r) at activation rate r."""
    threshold: Float64[Tensor, "*pool"]
    """Smallest number of uses, 0..segment_length, from which the best segment router takes an expert."""
    router_size: Float64[Tensor, "*pool"]
    """Mean number of experts it takes, relative to the real router; 0 for experts never used."""
    activation_rate: Float64[Tensor, "*pool"]
    """Share of (segment, token, expert) triples that are active; top_k / num_experts over a whole layer."""


@dataclass(frozen=True)
class SRPScores:
    """Each level pools the counts below it before it looks for its own best threshold; F1 is never averaged."""

    model: SegmentScores  # scalars
    layer: SegmentScores  # (layer,)
    expert: SegmentScores  # (layer, expert)
    model_by_domain: SegmentScores  # (domain,)
    layer_by_domain: SegmentScores  # (domain, layer)
    expert_by_domain: SegmentScores  # (domain, layer, expert)


def segment_scores(histogram: Int64[Tensor, "*pool bins"] | Float64[Tensor, "*pool bins"]) -> SegmentScores:
    """Score the pooled segment histograms of `segment_histogram` (last axis: uses per segment).

    The best router for a segment takes every expert used at least t times in it, with one t for the whole pool.
    Equal F1 goes to the smallest t. A pool in which no expert is ever used scores 0 at t = 0.
    """
    segment_length = histogram.shape[-1] - 1
    uses = torch.arange(segment_length + 1, device=histogram.device)
    predicted = segment_length * _at_least(histogram)  # (token, expert) pairs that threshold t fills
    matched = _at_least(histogram * uses)  # of these, the active ones
    possible, active = predicted[..., 0].double(), matched[..., 0].double()
    f1 = 2 * matched.double() / (predicted + matched[..., :1]).clamp(min=1)
    threshold = f1.argmax(-1, keepdim=True)  # the first of equals
    defined = torch.where(possible > 0, 0.0, torch.nan).double()
    return SegmentScores(
        srp=f1.gather(-1, threshold)[..., 0] + defined,
        threshold=threshold[..., 0] + defined,
        router_size=torch.where(active > 0, predicted.gather(-1, threshold)[..., 0] / active, 0.0) + defined,
        activation_rate=active / possible,
    )


def srp_scores(histogram: Int64[Tensor, "domain layer expert bins"]) -> SRPScores:
    """Pool and score the histograms at all levels."""
    by_layer = reduce(histogram, "domain layer expert bins -> domain layer bins", "sum")
    by_model = reduce(by_layer, "domain layer bins -> domain bins", "sum")
    return SRPScores(
        model=segment_scores(by_model.sum(0)),
        layer=segment_scores(by_layer.sum(0)),
        expert=segment_scores(histogram.sum(0)),
        model_by_domain=segment_scores(by_model),
        layer_by_domain=segment_scores(by_layer),
        expert_by_domain=segment_scores(histogram),
    )


class SRP(RoutingMetric):
    """SRP at every level for one segment length. Sequences shorter than a segment add nothing."""

    histogram: Int64[Tensor, "domain layer expert bins"]

    def __init__(
        self, *, num_layers: int, num_experts: int, num_domains: int = 1, segment_length: int = SEGMENT_LENGTH
    ) -> None:
        super().__init__(num_layers=num_layers, num_experts=num_experts, num_domains=num_domains)
        check_segment_length(segment_length)
        self.segment_length = segment_length
        self.add_count("histogram", num_domains, num_layers, num_experts, segment_length + 1)

    def update(self, trace: RoutingTrace) -> None:
        domains = self.domains_of(trace)
        self.histogram += segment_histogram(
            trace.expert_ids, self.num_experts, self.segment_length, domains, self.num_domains
        )

    def compute(self) -> SRPScores:
        return srp_scores(self.histogram)


def _at_least(histogram: Tensor) -> Tensor:
    """Reverse cumulative sum: how much lies in the bins t, t + 1, ..."""
    return histogram.flip(-1).cumsum(-1).flip(-1)
