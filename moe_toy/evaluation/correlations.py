"""How the measures of one model agree, as the paper correlates them (Liang et al. 2025, arXiv 2505.16056)."""

from __future__ import annotations

import pandas as pd
import torch

from moe_toy.metrics import pearson

CACHE_RATIOS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
REAL_POLICIES = ("lru", "lfu", "belady")
EXPERT_LENGTH = 16
"""The segment length at which experts are compared."""


def correlation_table(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Pearson r of `x` with `y`, and over how many pairs:

    - srp, sch: over (layer, domain), at equal segment length and one cache ratio;
    - sch, lru | lfu | belady: over (domain, capacity) of the cache of the whole model, so a trend in capacity is in it;
    - srp, domain | input | predicted | target specialization: over experts.
    """
    rows = []
    for x, y, segment_length, cache_ratio, pairs in (
        *_srp_with_sch(tables["srp"], tables["cache"]),
        *_sch_with_policies(tables["cache"]),
        *_srp_with_specialization(tables["srp"], tables["specialization"]),
    ):
        defined = pairs.dropna()
        r = pearson(*torch.tensor(defined.to_numpy(float)).T)
        rows.append((x, y, segment_length, cache_ratio, float(r), len(defined)))
    return pd.DataFrame(rows, columns=["x", "y", "segment_length", "cache_ratio", "r", "rows"])


def _srp_with_sch(srp: pd.DataFrame, cache: pd.DataFrame):
    srp = srp[(srp.level == "layer") & srp.domain.notna()]
    cache = cache[(cache.scope == "layer") & (cache.policy == "sch") & cache.domain.notna()]
    for ratio in CACHE_RATIOS:
        both = srp.merge(cache[(cache.cache_ratio - ratio).abs() < 1e-9], on=["layer", "domain", "segment_length"])
        for length, pairs in both.groupby("segment_length"):
            yield "srp", "sch", length, ratio, pairs[["srp", "hit_rate"]]


def _sch_with_policies(cache: pd.DataFrame):
    cache = cache[(cache.scope == "model") & cache.domain.notna()]
    sch = cache[cache.policy == "sch"]
    for policy in REAL_POLICIES:
        both = sch.merge(cache[cache.policy == policy], on=["domain", "capacity"])
        for length, pairs in both.groupby("segment_length_x"):
            yield "sch", policy, length, None, pairs[["hit_rate_x", "hit_rate_y"]]


def _srp_with_specialization(srp: pd.DataFrame, specialization: pd.DataFrame):
    srp = srp[(srp.level == "expert") & srp.domain.isna() & (srp.segment_length == EXPERT_LENGTH)]
    for kind, part in specialization.groupby("kind", sort=False):
        yield "srp", kind, EXPERT_LENGTH, None, srp.merge(part, on=["layer", "expert"])[["srp", "value"]]
