"""Kinds of claims: each test turns the results of a sweep into one number per seed and the range claimed for it.

Arms of a seed share text and initial weights, so differences are taken within a seed and only their spread over seeds
counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import fmean

import numpy as np
import pandas as pd

from moe_toy.findings import paper
from moe_toy.findings.comparison import Comparison, NotMeasuredError, fisher
from moe_toy.findings.knee import find_knee, gain_over_chance


def with_derived(results: pd.DataFrame) -> pd.DataFrame:
    """With `srp_above_floor`: perfectly even routing has the SRP 2k / (E + k), whatever the model."""
    if "consistency/srp@16" not in results:
        return results
    floor = 2 * results.top_k / (results.num_experts + results.top_k)
    return results.assign(srp_above_floor=results["consistency/srp@16"] - floor)


def falling(results: pd.DataFrame, *, metric: str, arms: Sequence[str]) -> list[Comparison]:
    """Each arm scores higher than the next."""
    return [
        Comparison(f"{first} - {second}", _difference(results, metric, first, second))
        for first, second in pairwise(arms)
    ]


def equal(results: pd.DataFrame, *, metric: str, arms: Sequence[str], margin: float) -> list[Comparison]:
    """Two arms score the same, give or take `margin`."""
    first, second = arms
    values = _difference(results, metric, first, second)
    return [Comparison(f"{first} - {second}", values, above=-margin, below=margin)]


def metrics_higher(
    results: pd.DataFrame, *, higher: str, lower: Sequence[str], arms: Sequence[str]
) -> list[Comparison]:
    """One metric is higher than others of the same run, in the mean over those of `arms` that were trained."""
    trained = results[results.arm.isin(arms)]
    comparisons = []
    for other in lower:
        both = trained.groupby("seed")[_columns(trained, higher, other)].mean().dropna()
        name = f"{higher.rpartition('/')[2]} - {other.rpartition('/')[2]}"
        comparisons.append(Comparison(name, list(both[higher] - both[other])))
    return comparisons


def higher_at_equal(
    results: pd.DataFrame, *, metric: str, matched: str, column: str, higher: str, lower: Sequence[str]
) -> list[Comparison]:
    """One value of `column` gives a higher `metric` than others where their runs reach the same of `matched`.

    The runs of a seed that share a value of `column` draw a line of `metric` over `matched`; the difference of two
    lines is averaged over the range that both cover.
    """
    return [
        Comparison(f"{higher} - {other}", _gaps(results, metric, matched, column, (higher, other))) for other in lower
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
    _columns(results, metric, column, *beside)
    table = results.pivot_table(index=["seed", *beside], columns=column, values=metric)
    if absent := [value for value in (*first, other) if value not in table]:
        raise NotMeasuredError(f"no finished arm with {column}={', '.join(absent)}")
    gaps = {value: (table[value] - table[other]).dropna().groupby("seed").mean() for value in first}
    return [Comparison(f"{value} - {other}", list(gap), above, below) for value, gap in gaps.items()]


def _gaps(results: pd.DataFrame, metric: str, matched: str, column: str, pair: tuple[str, str]) -> list[float]:
    """A difference for each seed in which two values of `column` reach the same of `matched`."""
    _columns(results, metric, matched, column)
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


def correlation_over_arms(results: pd.DataFrame, *, x: str, y: str, above: float) -> list[Comparison]:
    """Pearson's r over the arms of a seed."""
    defined = results.dropna(subset=_columns(results, x, y))
    values = [group[x].corr(group[y]) for _, group in defined.groupby("seed") if len(group) > 2]
    return [Comparison("r over arms", values, above=above, correlation=True)]


def correlation_logged(results: pd.DataFrame, *, metric: str, arm: str, above: float) -> list[Comparison]:
    """A correlation that the runs of an arm report themselves."""
    return [Comparison(f"r in {arm}", list(_by_arm(results, metric, [arm])[arm]), above=above, correlation=True)]


def prediction_improves(
    results: pd.DataFrame, *, segment_lengths: Sequence[int], policies: Sequence[str], cache_ratios: Sequence[float]
) -> list[Comparison]:
    """Pearson's r, over arms and cache ratios, of SCH with a real cache grows with each segment length."""

    def curve(prefix: str) -> pd.DataFrame:
        return results.set_index("seed")[_columns(results, *(f"{prefix}/ratio_{ratio:g}" for ratio in cache_ratios))]

    comparisons = []
    for policy in policies:
        real, z = curve(f"cache/{policy}"), {}
        for length in segment_lengths:
            best = curve(f"cache/sch@{length}")
            z[length] = [
                fisher(np.corrcoef(best.loc[[seed]].to_numpy().ravel(), real.loc[[seed]].to_numpy().ravel())[0, 1])
                for seed in real.index.unique()
            ]
        for short, long in pairwise(segment_lengths):
            gains = [after - before for before, after in zip(z[short], z[long], strict=True)]
            comparisons.append(Comparison(f"{policy}: z of r at {long} - at {short}", gains))
    return comparisons


def knee(results: pd.DataFrame, *, segment_length: int, arm: str, near: float, margin: float) -> list[Comparison]:
    """The cache, relative to the active experts, at which the hit-rate curve of SCH has its knee.

    A curve that still gains over chance at its last point shows none.
    """
    prefix = f"cache/sch@{segment_length}/ratio_"
    ratios = sorted(float(name.removeprefix(prefix)) for name in results if name.startswith(prefix))
    if not ratios:
        raise NotMeasuredError(f"no column {prefix}...")
    values = []
    for _, run in results[results.arm == arm].iterrows():
        active, items = run.top_k * run.num_moe_layers, run.num_experts * run.num_moe_layers
        capacity = np.arange(math.ceil(ratios[0] * active), int(ratios[-1] * active) + 1)
        hit_rate = np.interp(capacity / active, ratios, [run[f"{prefix}{ratio:g}"] for ratio in ratios])
        gain = gain_over_chance(capacity, hit_rate, int(items))
        found = find_knee(capacity, hit_rate, int(items))
        if found is not None and gain[-1] < gain.max():
            values.append(found.capacity / active)
    return [Comparison(f"knee in {arm}", values, above=near - margin, below=near + margin)]


def paper_order(results: pd.DataFrame, *, metric: str, column: str, above: float) -> list[Comparison]:
    """Spearman's rank correlation with a column of the paper's table, over its ten models."""
    published = (
        paper.numbers().set_index("model")[column].rename(paper.ARM_OF_MODEL).reindex(paper.ARM_OF_MODEL.values())
    )
    ours = _by_arm(results, metric, list(published.index))
    values = [row.rank().corr(published.rank()) for _, row in ours.iterrows()]
    return [Comparison("Spearman's rho", values, above=above, correlation=True)]


def _difference(results: pd.DataFrame, metric: str, first: str, second: str) -> list[float]:
    scores = _by_arm(results, metric, [first, second])
    return list(scores[first] - scores[second])


def _by_arm(results: pd.DataFrame, metric: str, arms: Sequence[str]) -> pd.DataFrame:
    """A row per seed that has all of `arms`, a column per arm."""
    _columns(results, metric)
    if absent := [arm for arm in arms if arm not in set(results.arm)]:
        raise NotMeasuredError(f"no finished arm {', '.join(absent)}")
    return results.pivot(index="seed", columns="arm", values=metric)[list(arms)].dropna()


def _columns(results: pd.DataFrame, *names: str) -> list[str]:
    if absent := [name for name in names if name not in results]:
        raise NotMeasuredError(f"no column {', '.join(absent)}")
    return list(names)


TESTS: dict[str, Callable[..., list[Comparison]]] = {
    test.__name__: test
    for test in (
        falling,
        equal,
        metrics_higher,
        higher_at_equal,
        differs_at_equal,
        share_of_gain_at_equal,
        differs_beside,
        correlation_over_arms,
        correlation_logged,
        prediction_improves,
        knee,
        paper_order,
    )
}
