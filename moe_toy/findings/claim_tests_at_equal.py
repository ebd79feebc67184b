"""Kinds of claims that compare two values of a column where their runs reach the same of something else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np
import pandas as pd

from moe_toy.findings.comparison import Comparison, NotMeasuredError, require_columns


def higher_at_equal(
    results: pd.DataFrame,
    *,
    metric: str,
    matched: str,
    column: str,
    higher: str,
    lower: Sequence[str],
    negligible: float = 0.0,
) -> list[Comparison]:
    """One value of `column` gives a higher `metric` than others where their runs reach the same of `matched`.

    The runs of a seed that share a value of `column` draw a line of `metric` over `matched`; the difference of two
    lines is averaged over the range that both cover.
    """
    return [
        Comparison(
            f"{higher} - {other}", _gaps(results, metric, matched, column, (higher, other)), negligible=negligible
        )
        for other in lower
    ]


def differs_at_equal(
    results: pd.DataFrame,
    *,
    metric: str,
    matched: str,
    column: str,
    first: Sequence[str],
    other: str,
    above: float = -math.inf,
    below: float = math.inf,
) -> list[Comparison]:
    """By how much `metric` differs between each of `first` and another value of `column`, where their runs reach the
    same of `matched`, as in `higher_at_equal`."""
    return [
        Comparison(f"{value} - {other}", _gaps(results, metric, matched, column, (value, other)), above, below)
        for value in first
    ]


def share_of_gain_at_equal(
    results: pd.DataFrame, *, metric: str, part: str, matched: str, column: str, first: str, other: str, above: float
) -> list[Comparison]:
    """Which share of the gain in `metric` is a gain in `part` of it, where runs reach the same of `matched`.

    Gains of a seed are divided by the mean gain over seeds; where that is none, there is nothing to share.
    """
    results = results.dropna(subset=require_columns(results, metric, part))
    whole = _gaps(results, metric, matched, column, (first, other))
    parts = _gaps(results, part, matched, column, (first, other))
    if whole and fmean(whole) <= 0:
        raise NotMeasuredError(f"{first} - {other}: no gain in {metric} where both reach the same {matched}")
    return [Comparison(f"share for {first} - {other}", [gain / fmean(whole) for gain in parts], above)]


def differs_beside(
    results: pd.DataFrame,
    *,
    metric: str,
    beside: Sequence[str],
    column: str,
    first: Sequence[str],
    other: str,
    above: float = -math.inf,
    below: float = math.inf,
) -> list[Comparison]:
    """By how much `metric` differs between each of `first` and another value of `column` in runs of a seed with equal
    values of the columns `beside`, mean over these values."""
    require_columns(results, metric, column, *beside)
    table = results.pivot_table(index=["seed", *beside], columns=column, values=metric)
    if absent := [value for value in (*first, other) if value not in table]:
        raise NotMeasuredError(f"no finished arm with {column}={', '.join(absent)}")
    gaps = {value: (table[value] - table[other]).dropna().groupby("seed").mean() for value in first}
    return [Comparison(f"{value} - {other}", list(gap), above, below) for value, gap in gaps.items()]


def _gaps(results: pd.DataFrame, metric: str, matched: str, column: str, pair: tuple[str, str]) -> list[float]:
    """A difference for each seed in which two values of `column` reach the same of `matched`."""
    require_columns(results, metric, matched, column)
    gaps = [
        _gap(*(group[group[column] == value].sort_values(matched) for value in pair), matched, metric)
        for _, group in results.dropna(subset=[metric, matched]).groupby("seed")
    ]
    return [gap for gap in gaps if gap is not None]


def _gap(first: pd.DataFrame, second: pd.DataFrame, x: str, y: str) -> float | None:
    if first.empty or second.empty:
        return None
    low, high = max(first[x].min(), second[x].min()), min(first[x].max(), second[x].max())
    if low > high:
        return None
    at = np.linspace(low, high, 101)
    return float(np.mean(np.interp(at, first[x], first[y]) - np.interp(at, second[x], second[y])))
