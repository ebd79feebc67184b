"""Kinds of claims: each test turns the results of a sweep into one number per seed and the range claimed for it.

Arms of a seed share text and initial weights, so differences are taken within a seed and only their spread over seeds
counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, stdev

import numpy as np
import pandas as pd

from moe_toy.findings import paper
from moe_toy.findings.knee import find_knee, gain_over_chance
from moe_toy.findings.student_t import mean_interval


class NotMeasuredError(Exception):
    """The results lack what a claim is about."""


@dataclass(frozen=True)
class Comparison:
    name: str
    values: Sequence[float]
    """One per seed."""
    above: float = 0.0
    below: float = math.inf
    correlation: bool = False
    """Means and intervals of correlations are taken after Fisher's transformation, which evens their spread."""

    def __post_init__(self) -> None:
        if not len(self.values):
            raise NotMeasuredError(f"{self.name}: no seed has all of it")

    def interval(self) -> tuple[float, float, float]:
        if not self.correlation:
            return mean_interval(self.values)
        mean, low, high = (math.tanh(bound) for bound in mean_interval(self._transformed()))
        return mean, low, high

    def effect_size(self) -> float:
        values = self._transformed() if self.correlation else self.values
        bound = fisher(self.above) if self.correlation else self.above if math.isinf(self.below) else 0.0
        spread = stdev(values) if len(values) > 1 else 0.0
        return (fmean(values) - bound) / spread if spread else math.nan

    def claimed(self) -> str:
        return f"above {self.above:g}" if math.isinf(self.below) else f"{self.above:g} to {self.below:g}"

    def _transformed(self) -> list[float]:
        return [fisher(r) for r in self.values]


def fisher(r: float) -> float:
    return math.atanh(max(-1 + 1e-9, min(1 - 1e-9, r)))


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
    _columns(results, metric, matched, column)
    comparisons = []
    for other in lower:
        gaps = [
            _gap(*(group[group[column] == value].sort_values(matched) for value in (higher, other)), matched, metric)
            for _, group in results.groupby("seed")
        ]
        comparisons.append(Comparison(f"{higher} - {other}", [gap for gap in gaps if gap is not None]))
    return comparisons


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
        correlation_over_arms,
        correlation_logged,
        prediction_improves,
        knee,
        paper_order,
    )
}
