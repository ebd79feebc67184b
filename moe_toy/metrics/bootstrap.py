"""Confidence intervals: the basic (reverse-percentile) bootstrap over sequences, as in Liang et al. 2025.

A resample draws whole sequences with replacement. Metrics are functions of sums over sequences, so a resample is the
same sum with a weight per sequence, how often it was drawn: sums get a `resample` axis, and memory does not grow with
the data.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float64, Int64, Integer
from torch import Tensor

from moe_toy.errors import UserError
from moe_toy.routing import RoutingTrace


class Interval(NamedTuple):
    """Bounds of a confidence interval; NaN where undefined."""

    low: Float64[Tensor, "*pool"]
    high: Float64[Tensor, "*pool"]


@runtime_checkable
class Resampler(Protocol):
    """Says how often each resample draws each sequence."""

    num_resamples: int
    confidence: float

    def __call__(self, trace: RoutingTrace, domains: Int64[Tensor, " batch"]) -> Int64[Tensor, "batch resample"]: ...


class PoissonResampler:
    """Draws every sequence Poisson(1) times, independently: the limit of drawing N from N, for data of unknown size
    (Chamandy et al. 2012). Metrics scale each domain back to its size, so domains keep their shares.

    The draw depends on `seed` and on the content of the sequence alone: batches and ranks do not matter, all metrics
    see the same resamples, and exact copies of a sequence are drawn together.
    """

    def __init__(self, num_resamples: int = 1000, seed: int = 0, confidence: float = 0.95) -> None:
        check_resamples(num_resamples, confidence)
        self.num_resamples = num_resamples
        self.confidence = confidence
        seeded = _mixed(np.array([seed % 2**64], np.uint64))
        self._resamples = _mixed(seeded ^ np.arange(num_resamples, dtype=np.uint64))
        cumulative = np.cumsum([math.exp(-1) / math.factorial(draws) for draws in range(18)])
        self._thresholds = (cumulative * 2.0**53).astype(np.uint64)

    def __call__(self, trace: RoutingTrace, domains: Int64[Tensor, " batch"]) -> Int64[Tensor, "batch resample"]:
        uniform = _mixed(_fingerprint(trace)[:, None] ^ self._resamples) >> np.uint64(11)  # 53 random bits
        draws = np.searchsorted(self._thresholds, uniform, side="right")
        return torch.from_numpy(draws).to(domains.device)


class IndexResampler:
    """Draws given samples: resample b holds samples `indices[:, b]` of every domain, counted in order of arrival. Each
    metric needs one of its own."""

    def __init__(self, indices: Integer[Tensor, "sample resample"], confidence: float = 0.95) -> None:
        num_samples, self.num_resamples = indices.shape
        check_resamples(self.num_resamples, confidence)
        self.confidence = confidence
        indices = indices.long()
        self._draws = torch.zeros(num_samples, self.num_resamples, dtype=torch.int64)
        self._draws.scatter_add_(0, indices, torch.ones_like(indices))
        self._seen: dict[int, int] = {}

    def __call__(self, trace: RoutingTrace, domains: Int64[Tensor, " batch"]) -> Int64[Tensor, "batch resample"]:
        rows = []
        for domain in domains.tolist():
            rows.append(self._seen.get(domain, 0))
            self._seen[domain] = rows[-1] + 1
        if rows and max(rows) >= len(self._draws):
            raise UserError(
                f"there are indices for {len(self._draws)} sequences of a domain, but more were seen; draw more, and "
                "give every metric an IndexResampler of its own"
            )
        return self._draws[rows].to(domains.device)


def add_resampled(
    sums: Float64[Tensor, "domain resample *cell"],
    values: Int64[Tensor, " batch *cell"],
    weights: Int64[Tensor, "batch resample"],
    domains: Int64[Tensor, " batch"],
) -> None:
    """Add the values of each sequence, times its weight in each resample, to the sums of its domain, in place.

    The sums are whole numbers below 2^53, so float64 holds them exactly, in any order; matrix products need floats.
    """
    cells = values.flatten(1).double()
    weights = weights.double()
    for domain in domains.unique().tolist():
        members = domains == domain
        sums[domain].flatten(1).addmm_(weights[members].T, cells[members])


def basic_interval(
    estimate: Float64[Tensor, "*pool"], replicates: Float64[Tensor, "*pool resample"], confidence: float = 0.95
) -> Interval:
    """Reflect the quantiles of the replicates at the estimate: low = 2 estimate - upper quantile, and the reverse.

    Quantiles are order statistics without interpolation, as in the published code. Undefined replicates do not count.
    """
    defined = (~replicates.isnan()).sum(-1, keepdim=True)
    tail = (defined.double() * (1 - confidence) / 2).round().long()
    last = (defined - 1).clamp(min=0)
    upper_rank, lower_rank = torch.minimum(defined - tail, last), torch.minimum(tail, last)
    # numpy sorts with vector instructions, in half the time of its partition at two ranks. NaN come last.
    ordered = torch.from_numpy(np.sort(replicates.contiguous().cpu().numpy(), axis=-1)).to(replicates.device)
    upper = ordered.gather(-1, upper_rank)[..., 0]
    lower = ordered.gather(-1, lower_rank)[..., 0]
    return Interval(low=2 * estimate - upper, high=2 * estimate - lower)


def check_resamples(num_resamples: int, confidence: float) -> None:
    if not 0 < confidence < 1:
        raise UserError(f"confidence must lie between 0 and 1, not {confidence}; the paper uses 0.95")
    if num_resamples * (1 - confidence) / 2 < 1 - 1e-9:
        raise UserError(
            f"{num_resamples} resamples are too few for confidence {confidence}; "
            f"use at least {math.ceil(2 / (1 - confidence) - 1e-9)}, the paper uses 1000"
        )


def _fingerprint(trace: RoutingTrace) -> np.ndarray:
    """One 64-bit number per sequence, from its tokens and the routing of its first layer."""
    tokens = [] if trace.token_ids is None else [trace.token_ids.long()]
    content = torch.cat([*tokens, trace.expert_ids[0].flatten(1).long()], 1).cpu().numpy()
    order = _mixed(np.arange(content.shape[1], dtype=np.uint64))
    return _mixed(content.astype(np.uint64) ^ order).sum(1, dtype=np.uint64)


def _mixed(bits: np.ndarray) -> np.ndarray:
    """SplitMix64: spreads every input bit over all 64."""
    with np.errstate(over="ignore"):
        bits = bits + np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return bits ^ (bits >> np.uint64(31))
