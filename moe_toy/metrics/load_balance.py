"""How evenly experts are used: over everything, within a sequence, and within a segment of a few tokens.

Routing can be even over a corpus and still uneven in every short segment; that is what expert caches live on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float64, Int64, Integer
from torch import Tensor

from moe_toy.metrics.activation import SEGMENT_LENGTH, check_segment_length, or_beyond, segment_counts
from moe_toy.metrics.base import RoutingMetric
from moe_toy.routing import RoutingTrace

FIXED_POINT = 2**32
"""Imbalances of sequences and segments are summed as integers in steps of 2^-32, so that any order of batches and
ranks gives the same bits."""


@dataclass(frozen=True)
class LoadScores:
    """Balance per layer; NaN where nothing was counted. Higher is less even, except for entropy.

    MaxVio is the largest load over the mean load, minus 1 (Wang et al. 2024, arXiv 2408.15664), in
    [0, num_experts / top_k - 1]; CV is the population standard deviation of the load over its mean.
    """

    load: Float64[Tensor, "*pool layer expert"]
    """Share of assignments that each expert receives; sums to 1."""
    max_violation: Float64[Tensor, "*pool layer"]
    largest_share: Float64[Tensor, "*pool layer"]
    """Share of tokens that choose the busiest expert, in [top_k / num_experts, 1]."""
    cv: Float64[Tensor, "*pool layer"]
    entropy: Float64[Tensor, "*pool layer"]
    """Of the load, relative to log(num_experts): 1 is perfectly even."""
    effective_experts: Float64[Tensor, "*pool layer"]
    """Exponential of the entropy in nats: how many evenly used experts would have it, in [1, num_experts]."""
    dead_experts: Float64[Tensor, "*pool layer"]
    """How many experts were never chosen."""
    dead_fraction: Float64[Tensor, "*pool layer"]
    sequence_max_violation: Float64[Tensor, "*pool layer"]
    """MaxVio within one sequence, mean over the sequences that use an expert of the layer."""
    sequence_cv: Float64[Tensor, "*pool layer"]
    segment_cv: Float64[Tensor, "*pool layer"]
    """CV within one segment, mean over all overlapping segments that use an expert of the layer."""


@dataclass(frozen=True)
class LoadBalanceScores:
    overall: LoadScores  # (layer,)
    by_domain: LoadScores  # (domain, layer)


def expert_counts(
    expert_ids: Integer[Tensor, "layer batch seq k"], num_experts: int
) -> Int64[Tensor, "batch layer {num_experts}"]:
    """How many tokens of each sequence chose each expert."""
    ids = or_beyond(rearrange(expert_ids, "layer batch seq k -> batch layer (seq k)"), num_experts)
    counts = torch.zeros(*ids.shape[:2], num_experts + 1, dtype=torch.int64, device=ids.device)
    return counts.scatter_add_(-1, ids, torch.ones_like(ids))[..., :-1]


def load_cv(counts: Integer[Tensor, "*pool expert"]) -> Float64[Tensor, "*pool"]:
    """Standard deviation over mean of the counts: 0 is even, sqrt(num_experts - 1) is one expert for all."""
    num_experts, total = counts.shape[-1], counts.sum(-1).double()
    return (num_experts * counts.square().sum(-1) / total.square() - 1).clamp(min=0).sqrt()


def max_violation(counts: Integer[Tensor, "*pool expert"]) -> Float64[Tensor, "*pool"]:
    """Largest count over the mean count, minus 1."""
    return counts.amax(-1) * counts.shape[-1] / counts.sum(-1).double() - 1


def activation_rate_std(activation_rate: Float64[Tensor, "layer expert"]) -> Float64[Tensor, ""]:
    """Sample standard deviation over all experts of all layers; 0 is perfectly even. The only measure of balance in
    the published code of Liang et al. 2025 (there over the rates of `SRPScores.expert`)."""
    return activation_rate.std(correction=1)


class LoadBalance(RoutingMetric):
    """Imbalance over everything, per sequence and per segment of `segment_length` tokens."""

    counts: Int64[Tensor, "domain layer expert"]
    tokens: Int64[Tensor, " domain"]
    sequences: Int64[Tensor, "domain layer"]
    segments: Int64[Tensor, "domain layer"]

    def __init__(
        self, *, num_layers: int, num_experts: int, num_domains: int = 1, segment_length: int = SEGMENT_LENGTH
    ) -> None:
        super().__init__(num_layers=num_layers, num_experts=num_experts, num_domains=num_domains)
        check_segment_length(segment_length)
        self.segment_length = segment_length
        self.add_count("counts", num_domains, num_layers, num_experts)
        self.add_count("tokens", num_domains)
        for name in ("sequences", "segments", "sequence_max_violation", "sequence_cv", "segment_cv"):
            self.add_count(name, num_domains, num_layers)

    def update(self, trace: RoutingTrace) -> None:
        domains = self.domains_of(trace)
        counts = expert_counts(trace.expert_ids, self.num_experts)
        seq = trace.expert_ids.shape[2]
        if seq == 0:
            return
        self.counts.index_add_(0, domains, counts)
        self.tokens.index_add_(0, domains, torch.full_like(domains, seq))
        cv = load_cv(counts)
        self.sequences.index_add_(0, domains, _defined(cv))
        self.sequence_max_violation.index_add_(0, domains, _fixed(max_violation(counts)))
        self.sequence_cv.index_add_(0, domains, _fixed(cv))
        for layer, ids in enumerate(trace.expert_ids):  # one at a time: the counts of all segments are large
            cv = load_cv(segment_counts(ids, self.num_experts, self.segment_length))
            self.segments[:, layer].index_add_(0, domains, _defined(cv).sum(-1))
            self.segment_cv[:, layer].index_add_(0, domains, _fixed(cv).sum(-1))

    def compute(self) -> LoadBalanceScores:
        local = (
            (self.sequence_max_violation, self.sequences),
            (self.sequence_cv, self.sequences),
            (self.segment_cv, self.segments),
        )
        return LoadBalanceScores(
            overall=_scores(
                self.counts.sum(0),
                self.tokens.sum(0),
                *(_mean(total.sum(0), number.sum(0)) for total, number in local),
            ),
            by_domain=_scores(self.counts, self.tokens, *(_mean(total, number) for total, number in local)),
        )


def _scores(
    counts: Int64[Tensor, "*pool layer expert"],
    tokens: Int64[Tensor, "*pool"],
    sequence_max_violation: Float64[Tensor, "*pool layer"],
    sequence_cv: Float64[Tensor, "*pool layer"],
    segment_cv: Float64[Tensor, "*pool layer"],
) -> LoadScores:
    load = counts / counts.sum(-1, keepdim=True).double()
    entropy = -torch.xlogy(load, load).sum(-1)
    dead = (counts == 0).sum(-1).where(counts.sum(-1) > 0, torch.nan).double()
    return LoadScores(
        load=load,
        max_violation=max_violation(counts),
        largest_share=counts.amax(-1) / tokens.double()[..., None],
        cv=load_cv(counts),
        entropy=entropy / math.log(counts.shape[-1]),
        effective_experts=entropy.exp(),
        dead_experts=dead,
        dead_fraction=dead / counts.shape[-1],
        sequence_max_violation=sequence_max_violation,
        sequence_cv=sequence_cv,
        segment_cv=segment_cv,
    )


def _mean(
    fixed_sum: Int64[Tensor, "*pool layer"], number: Int64[Tensor, "*pool layer"]
) -> Float64[Tensor, "*pool layer"]:
    return fixed_sum.double() / FIXED_POINT / number


def _defined(values: Float64[Tensor, "*any"]) -> Int64[Tensor, "*any"]:
    """1 where something was used, 0 where tokens without experts leave nothing to be even or not."""
    return (~values.isnan()).long()


def _fixed(values: Float64[Tensor, "*any"]) -> Int64[Tensor, "*any"]:
    return (values.nan_to_num(0.0) * FIXED_POINT).round().long()
