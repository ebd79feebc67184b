"""What SRP would be if the same tokens came in another order, on average over all orders.

A segment of shuffled tokens is a draw of `segment_length` tokens without replacement, so the number of its tokens that
activate an expert follows the hypergeometric distribution. That gives the expected histogram of segments from counts
alone, where `metrics.null_models` shuffles tokens and counts again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from moe_toy.metrics.activation import SEGMENT_LENGTH, check_segment_length
from moe_toy.metrics.base import RoutingMetric
from moe_toy.metrics.load_balance import expert_counts
from moe_toy.metrics.srp import segment_scores
from moe_toy.routing import RoutingTrace

FIXED_POINT = 2**24
"""Probabilities are integers in steps of 2^-24, so that any order of batches and ranks gives the same bits."""


@dataclass(frozen=True)
class ShuffledScores:
    """SRP of the model with its tokens shuffled; NaN where no sequence holds a segment."""

    sequence: Float64[Tensor, ""]
    """Within each sequence: which experts a document uses is left, the order of its tokens is not."""
    corpus: Float64[Tensor, ""]
    """Over all sequences: only the load of each expert is left."""


class ShuffledSRP(RoutingMetric):
    """Expected SRP of shuffled tokens for one segment length. Sequences shorter than a segment add nothing."""

    within: Int64[Tensor, " bins"]
    counts: Int64[Tensor, "layer expert"]
    tokens: Int64[Tensor, ""]
    segments: Int64[Tensor, ""]

    def __init__(self, *, num_layers: int, num_experts: int, segment_length: int = SEGMENT_LENGTH) -> None:
        super().__init__(num_layers=num_layers, num_experts=num_experts)
        check_segment_length(segment_length)
        self.segment_length = segment_length
        self.add_count("within", segment_length + 1)
        self.add_count("counts", num_layers, num_experts)
        self.add_count("tokens")
        self.add_count("segments")

    def update(self, trace: RoutingTrace) -> None:
        self.check(trace)
        batch, seq = trace.num_sequences, trace.sequence_length
        segments = seq - self.segment_length + 1
        if segments < 1:
            return
        counts = expert_counts(trace.expert_ids, self.num_experts)
        drawn = in_a_draw(seq, self.segment_length).to(counts.device)
        used = torch.bincount(counts.flatten(), minlength=seq + 1)  # by how many tokens, in how many sequences
        self.within += (used[:, None] * drawn).sum(0) * segments
        self.counts += counts.sum(0)
        self.tokens += batch * seq
        self.segments += batch * segments

    def compute(self) -> ShuffledScores:
        everywhere = hypergeometric(self.counts.flatten(), self.tokens, self.segment_length).sum(0) * self.segments
        return ShuffledScores(
            sequence=segment_scores(self.within.double() / FIXED_POINT).srp, corpus=segment_scores(everywhere).srp
        )


@lru_cache(maxsize=8)
def in_a_draw(tokens: int, draws: int) -> Int64[Tensor, "{tokens}+1 {draws}+1"]:
    """Row n: how the number of marked tokens in a draw is distributed where n of all `tokens` are marked."""
    return (hypergeometric(torch.arange(tokens + 1), torch.tensor(tokens), draws) * FIXED_POINT).round().long()


def hypergeometric(
    marked: Int64[Tensor, " row"], tokens: Int64[Tensor, ""], draws: int
) -> Float64[Tensor, "row {draws}+1"]:
    """Probability of 0, 1, ... `draws` marked tokens in a draw without replacement from `tokens`."""
    hits, marked = torch.arange(draws + 1, device=marked.device), marked[:, None]
    log = _log_choose(marked, hits) + _log_choose(tokens - marked, draws - hits)
    return (log - _log_choose(tokens, torch.tensor(draws, device=marked.device))).exp()


def _log_choose(n: Int64[Tensor, "*rows"], k: Int64[Tensor, "*columns"]) -> Float64[Tensor, "*table"]:
    """Logarithm of the binomial coefficient; minus infinity where k exceeds n."""
    possible = k <= n
    n, k = n.double(), k.double()
    log = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma((n - k).clamp(min=0) + 1)
    return log.where(possible, -torch.inf)
