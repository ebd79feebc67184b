"""How the measures of one model agree, as the paper correlates them (Liang et al. 2025, arXiv 2505.16056)."""

from __future__ import annotations

import pandas as pd

from moe_toy.metrics.activation import SEGMENT_LENGTH
from moe_toy.metrics.agreement import correlations, r_of, sch_with_caches, srp_with_sch


def correlation_table(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Pearson r of `x` with `y`, and over how many pairs:

    - srp, sch: over (layer, domain), at equal segment length and one cache ratio;
    - sch, lru | lfu | belady: over (domain, capacity) of the cache of the whole model, so a trend in capacity is in it;
    - srp, domain | input | predicted | target specialization: over experts.
    """
    model = {"": tables}
    measures = correlations(srp_with_sch(model), sch_with_caches(model))
    return pd.concat([measures, _srp_with_specialization(tables["srp"], tables["specialization"])], ignore_index=True)


def _srp_with_specialization(srp: pd.DataFrame, specialization: pd.DataFrame) -> pd.DataFrame:
    srp = srp[(srp.level == "expert") & srp.domain.isna() & (srp.segment_length == SEGMENT_LENGTH)]
    rows = []
    for kind, part in specialization.groupby("kind", sort=False):
        both = srp.merge(part, on=["layer", "expert"])
        rows.append(("srp", kind, SEGMENT_LENGTH, float("nan"), *r_of(both.srp, both.value)))
    return pd.DataFrame(rows, columns=["x", "y", "segment_length", "cache_ratio", "r", "rows"])
