"""The points of a sweep over locality, in numbers: what schemes reach, at which price, and what guards say of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moe_toy.report.figures.locality import BITS, HIT_RATE

if TYPE_CHECKING:
    import pandas as pd

POINT = ("locality", "balance.coefficient")
MEASURED = {
    BITS: "bits per byte",
    HIT_RATE: "LRU@2",
    "consistency/srp@16": "SRP@16",
    "consistency/above_sequence@16": "above sequence",
    "consistency/above_corpus@16": "above corpus",
    "load/cv": "load CV",
    "load/max_violation": "MaxVio",
    "load/effective_experts": "effective experts",
    "load/dead_experts": "dead experts",
    "load/largest_share": "largest share",
    "cache/cold_misses": "cold misses",
}


def locality_points(results: pd.DataFrame) -> pd.DataFrame:
    """A row for every point of the sweep, with means over seeds of what was logged. A key is empty where arms did not
    vary it."""
    keys = [key for key in POINT if key in results]
    points = results.groupby(keys, sort=False, dropna=False)
    means = points[[key for key in MEASURED if key in results]].mean()
    return means.rename(columns=MEASURED).join(points.seed.nunique().rename("seeds")).reset_index()
