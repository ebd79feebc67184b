"""Hit rates of an expert cache at every capacity: SCH, the segment cache best hit rate, and three real policies.

A cache starts empty in every sequence. In token order, the paper's, all experts of a token are looked up before any of
them is loaded; then they are loaded one after another, best first, and each may evict any other. Since they are looked
up together but loaded one by one, Belady's rule is no upper bound when a token has more than one expert.

In layer order, an engine's, this happens layer by layer, and as a layer computes with all its experts at once, none of
them evicts another (as long as they fit); so Belady's rule is the upper bound. A prompt is one long token: engines
read a whole prompt layer by layer, each expert once.

A full cache evicts the expert with the fewest uses left in the segment of `segment_length` tokens that begins with the
current one ("sch"), the least recently used ("lru"), the least often used in this sequence ("lfu"), or the one needed
last ("belady"); ties evict the least recently used.

SCH: Liang et al. 2025, arXiv 2505.16056.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float64, Int64, Integer
from torch import Tensor

from moe_toy.errors import UserError
from moe_toy.metrics.activation import SEGMENT_LENGTH, check_segment_length
from moe_toy.metrics.base import RoutingMetric
from moe_toy.metrics.bootstrap import Interval, Resampler, add_resampled, basic_interval
from moe_toy.metrics.lookups import Order, Scope, look_up
from moe_toy.routing import RoutingTrace

Policy = Literal["sch", "lru", "lfu", "belady"]
Cold = Literal["hit", "miss", "exclude"]
"""How the first request for an expert in a sequence counts: as a hit while fewer than `capacity` distinct experts have
been requested (the paper's choice, as if the cache had been filled with just these), always as a miss, or not at all.
"""


@dataclass(frozen=True)
class CacheScores:
    """Hit rates in [0, 1]; index c on the last axis is capacity c + 1. A row is a layer, or the only row is the model.
    NaN where nothing was requested."""

    capacity: Int64[Tensor, " capacity"]
    """How many experts the cache holds."""
    cache_ratio: Float64[Tensor, " capacity"]
    """Capacity relative to the experts that one token activates in the cached layers."""
    hit_rate: Float64[Tensor, "row capacity"]
    """Plain mean over the domains."""
    by_domain: Float64[Tensor, "domain row capacity"]
    interval: Interval | None = None
    """Of `hit_rate`: plain mean of the domains' bounds, as the paper reports it; NaN where a domain has none. None
    without a resampler."""
    interval_by_domain: Interval | None = None
    """NaN with fewer than two sequences."""

    def at_ratio(self, cache_ratio: float, *, by_domain: bool = False) -> Float64[Tensor, "*domain row"]:
        """Hit rate at one cache ratio; NaN if that is no whole number of experts, or more than there are."""
        rates = self.by_domain if by_domain else self.hit_rate
        matching = (self.cache_ratio - cache_ratio).abs() < 1e-9
        return rates[..., matching][..., 0] if matching.any() else torch.full_like(rates[..., 0], torch.nan)


def cache_hits(
    expert_ids: Integer[Tensor, "layer batch seq k"],
    num_experts: int,
    *,
    policy: Policy,
    segment_length: int = SEGMENT_LENGTH,
    scope: Scope = "layer",
    cold: Cold = "hit",
    order: Order = "token",
    prompt_lengths: Integer[Tensor, " batch"] | None = None,
    expert_bytes: Sequence[int] | None = None,
) -> tuple[Int64[Tensor, "batch row capacity"], Int64[Tensor, "batch row"]]:
    """Hits at every capacity 1, 2, ... and requests, per sequence. Only "sch" reads `segment_length`.

    A segment that reaches beyond the end of a sequence is cut there. An expert of -1 is none. The first
    `prompt_lengths` tokens of a sequence warm its cache and are not counted. `expert_bytes` is the size of an expert
    in each layer: a capacity of c is then room for c experts of mean size.
    """
    check_segment_length(segment_length)
    rows, batch, num_items = len(expert_ids), expert_ids.shape[1], num_experts
    if scope == "model":
        rows, num_items = 1, num_experts * len(expert_ids)
    from moe_toy.metrics import cache_kernel as kernel  # numba takes half a second

    seq, width = expert_ids.shape[2], expert_ids.shape[0] * expert_ids.shape[3] // rows
    if num_items > kernel.MAX_ITEMS or seq * width > kernel.MAX_REQUESTS or seq > kernel.MAX_COUNT:
        raise UserError(
            f"a cache over {num_items} experts and {seq * width} requests per sequence is too large (at most "
            f"{kernel.MAX_ITEMS} and {kernel.MAX_REQUESTS}); cut the sequences or use scope='layer'"
        )
    most = 2**62 // num_items**2  # the loops sum sizes and multiply them
    if expert_bytes is not None and (
        len(expert_bytes) != len(expert_ids) or not 1 <= min(expert_bytes) <= max(expert_bytes) <= most
    ):
        raise UserError(
            f"expert_bytes is {str(expert_bytes)[:60]} for {len(expert_ids)} layers; "
            "give the bytes of an expert in each"
        )
    lookups = look_up(
        expert_ids, num_experts, scope=scope, order=order, segment_length=segment_length, prompt_lengths=prompt_lengths
    )
    hits_at = torch.zeros(rows, batch, num_items, dtype=torch.int64)
    distinct = torch.zeros(rows, batch, 2, dtype=torch.int64)
    requests, ends, sights, counted = (tensor.numpy() for tensor in lookups)
    sizes = np.array([] if scope == "layer" or expert_bytes is None else expert_bytes, np.int64).repeat(num_experts)
    whole_prompt = scope == "layer" and order == "token" and prompt_lengths is not None
    counts = sizes, whole_prompt, hits_at.numpy(), distinct.numpy()
    if policy == "lru":
        kernel.count_lru_hits(requests, ends, counted, *counts)
    else:
        kernel.count_hits(requests, ends, sights, counted, *counts, kernel.POLICIES[policy], order == "layer")
    hits = hits_at.cumsum(-1)
    total = lookups.counted_requests()
    before, after = distinct.unbind(-1)
    if cold == "hit":
        capacity = torch.arange(1, num_items + 1)
        hits += torch.minimum(after[..., None], capacity) - torch.minimum(before[..., None], capacity)
    elif cold == "exclude":
        total -= after - before
    device = expert_ids.device
    return (
        rearrange(hits, "row batch capacity -> batch row capacity").to(device),
        rearrange(total, "row batch -> batch row").to(device),
    )


class CacheHitRate(RoutingMetric):
    """Hit rates of one policy at every capacity.

    `sample_stride` keeps every n-th sequence of a domain in order of arrival (the paper takes 16 for SCH); only with 1
    does the result not depend on how sequences are spread over ranks. A `resampler` adds intervals.
    """

    hits: Int64[Tensor, "domain row capacity"]
    requests: Int64[Tensor, "domain row"]
    seen: Int64[Tensor, " domain"]

    def __init__(
        self,
        *,
        num_layers: int,
        num_experts: int,
        top_k: int,
        num_domains: int = 1,
        policy: Policy = "sch",
        segment_length: int = SEGMENT_LENGTH,
        scope: Scope = "layer",
        cold: Cold = "hit",
        order: Order = "token",
        sample_stride: int = 1,
        resampler: Resampler | None = None,
    ) -> None:
        super().__init__(num_layers=num_layers, num_experts=num_experts, num_domains=num_domains)
        check_segment_length(segment_length)
        if sample_stride < 1:
            raise UserError(f"sample_stride must be at least 1, not {sample_stride}; 1 takes every sequence")
        self.policy, self.segment_length, self.scope, self.cold, self.order = policy, segment_length, scope, cold, order
        self.width = top_k if scope == "layer" else top_k * num_layers
        self.sample_stride = sample_stride
        self.resampler = resampler
        rows, capacities = (num_layers, num_experts) if scope == "layer" else (1, num_layers * num_experts)
        self.add_count("hits", num_domains, rows, capacities)
        self.add_count("requests", num_domains, rows)
        self.add_count("seen", num_domains)
        if resampler is not None:
            shape = num_domains, resampler.num_resamples, rows
            self.add_count("resampled_hits", *shape, capacities, dtype=torch.float64)
            self.add_count("resampled_requests", *shape, dtype=torch.float64)
            self.add_count("sequences", num_domains, rows)

    def update(self, trace: RoutingTrace) -> None:
        domains = self.domains_of(trace)
        kept = self._kept(domains)
        trace, domains = trace.select(kept), domains[kept]
        hits, requests = cache_hits(
            trace.expert_ids,
            self.num_experts,
            policy=self.policy,
            segment_length=self.segment_length,
            scope=self.scope,
            cold=self.cold,
            order=self.order,
            prompt_lengths=trace.prompt_lengths,
            expert_bytes=trace.expert_bytes,
        )
        self.hits.index_add_(0, domains, hits)
        self.requests.index_add_(0, domains, requests)
        if self.resampler is not None:
            weights = self.resampler(trace, domains)
            add_resampled(self.resampled_hits, hits, weights, domains)
            add_resampled(self.resampled_requests, requests, weights, domains)
            self.sequences.index_add_(0, domains, (requests > 0).long())

    def _kept(self, domains: Int64[Tensor, " batch"]) -> Int64[Tensor, " kept"]:
        """Every `sample_stride`-th sequence of each domain."""
        kept = torch.zeros_like(domains, dtype=torch.bool)
        for domain in domains.unique():
            members = (domains == domain).nonzero()[:, 0]
            order = self.seen[domain] + torch.arange(len(members), device=members.device)
            kept[members[order % self.sample_stride == 0]] = True
            self.seen[domain] += len(members)
        return kept.nonzero()[:, 0]

    def compute(self) -> CacheScores:
        by_domain = self.hits / self.requests.double()[..., None]
        capacity = torch.arange(1, self.hits.shape[-1] + 1, device=self.hits.device)
        interval = by_domain_interval = None
        if self.resampler is not None:
            replicates = self.resampled_hits / self.resampled_requests[..., None]
            estimate = by_domain.where(self.sequences[..., None] > 1, torch.nan)  # one sequence shows no spread
            by_domain_interval = basic_interval(estimate, replicates.movedim(1, -1), self.resampler.confidence)
            counted = ~by_domain.isnan()
            interval = Interval(*(bound.where(counted, 0.0).sum(0) / counted.sum(0) for bound in by_domain_interval))
        return CacheScores(
            capacity=capacity,
            cache_ratio=capacity.double() / self.width,
            hit_rate=by_domain.nanmean(0),
            by_domain=by_domain,
            interval=interval,
            interval_by_domain=by_domain_interval,
        )
