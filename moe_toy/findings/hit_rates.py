"""Hit-rate curves of one model out of its `cache` table."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

POLICIES = {"sch": "SCH", "belady": "Belady", "lru": "LRU", "lfu": "LFU"}
"""As they are written in figures."""


def order_of(cache: pd.DataFrame) -> str:
    """In which order a table can say what a real cache gets: "layer", or "token" if it was measured before there was
    another."""
    return "layer" if "order" in cache else "token"


def shared(cache: pd.DataFrame, order: str | None = None) -> pd.DataFrame:
    """Rows of the cache that all layers share, by default in the order of real caches."""
    rows = cache[cache.scope == "model"]
    return rows[rows.order == (order or "layer")] if "order" in cache else rows


def model_curve(
    cache: pd.DataFrame, policy: str, segment_length: int | None = None, order: str | None = None
) -> pd.DataFrame:
    """Rows of the cache that all layers share, mean over domains, smallest capacity first. SCH needs its length."""
    rows = shared(cache, order)
    rows = rows[(rows.policy == policy) & rows.domain.isna()]
    if segment_length is not None:
        rows = rows[rows.segment_length == segment_length]
    return rows.sort_values("capacity")


def at_ratio(curve: pd.DataFrame, cache_ratio: float) -> pd.Series:
    """The row whose cache ratio is closest."""
    return curve.loc[(curve.cache_ratio - cache_ratio).abs().idxmin()]


def at_capacity(curve: pd.DataFrame, capacity: int) -> pd.Series:
    return curve[curve.capacity == capacity].iloc[0]
