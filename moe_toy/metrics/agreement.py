"""How SRP, SCH and real caches agree over models, layers and domains (Liang et al. 2025, arXiv 2505.16056).

Models are given as the tables of `analyze`, by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING

import torch

from moe_toy.metrics.correlation import pearson

if TYPE_CHECKING:
    import pandas as pd

CACHE_RATIOS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
"""At which the paper correlates SRP with SCH; a model has rows where ratio x top_k is a whole number of experts."""
REAL_CACHES = ("lru", "lfu", "belady")


def srp_with_sch(models: Mapping[str, Mapping[str, pd.DataFrame]]) -> pd.DataFrame:
    """A row per model, layer, domain, segment length and ratio of `CACHE_RATIOS`: SRP, and SCH of the layer's cache."""
    import pandas as pd  # half a second

    parts = []
    for name, tables in models.items():
        srp = _finest(tables["srp"].query("level == 'layer'"))
        cache = tables["cache"].query("policy == 'sch' and scope == 'layer'")
        sch = _finest(cache[cache.cache_ratio.isin(CACHE_RATIOS)]).rename(columns={"hit_rate": "sch"})
        keys = ["layer", "domain", "segment_length"]
        parts.append(srp[[*keys, "srp"]].merge(sch[[*keys, "cache_ratio", "sch"]], on=keys).assign(model=name))
    return pd.concat(parts, ignore_index=True)


def sch_with_caches(models: Mapping[str, Mapping[str, pd.DataFrame]]) -> pd.DataFrame:
    """A row per model, domain, every size of the shared cache, segment length and real policy: SCH and hit rate, in the
    paper's order."""
    import pandas as pd  # half a second

    parts = []
    for name, tables in models.items():
        cache = _finest(in_token_order(tables["cache"].query("scope == 'model'")))
        sch = cache[cache.policy == "sch"].rename(columns={"hit_rate": "sch"})
        real = cache[cache.policy.isin(REAL_CACHES)]
        keys = ["domain", "capacity"]
        pairs = sch[[*keys, "segment_length", "sch"]].merge(real[[*keys, "cache_ratio", "policy", "hit_rate"]], on=keys)
        parts.append(pairs.assign(model=name))
    return pd.concat(parts, ignore_index=True)


def correlations(srp_sch: pd.DataFrame, sch_real: pd.DataFrame) -> pd.DataFrame:
    """Pearson's r of the pairs above as x, y, segment_length, cache_ratio, r, rows. Cache sizes vary within the rows of
    real caches, as in the paper, which adds a common trend."""
    import pandas as pd  # half a second

    found = [
        ("srp", "sch", length, ratio, *r_of(rows.srp, rows.sch))
        for (length, ratio), rows in srp_sch.groupby(["segment_length", "cache_ratio"])
    ]
    for policy, length in product(REAL_CACHES, sorted(sch_real.segment_length.unique())):
        rows = sch_real[(sch_real.policy == policy) & (sch_real.segment_length == length)]
        found.append(("sch", policy, length, None, *r_of(rows.sch, rows.hit_rate)))
    return pd.DataFrame(found, columns=["x", "y", "segment_length", "cache_ratio", "r", "rows"])


def r_of(x: pd.Series, y: pd.Series) -> tuple[float, int]:
    """Pearson's r of two columns, and over how many rows both are defined."""
    r = pearson(*(torch.tensor(side.to_numpy(float, na_value=float("nan"))) for side in (x, y)))
    return r.item(), int((x.notna() & y.notna()).sum())


def in_token_order(cache: pd.DataFrame) -> pd.DataFrame:
    """The rows of the paper's order. A table without orders holds no other."""
    return cache[cache.order == "token"] if "order" in cache else cache


def _finest(rows: pd.DataFrame) -> pd.DataFrame:
    """By domain where there are domains; pooled rows else."""
    by_domain = rows[rows.domain.notna()]
    return rows.assign(domain="") if by_domain.empty else by_domain
