"""Kinds of claims: each test turns the results of a sweep into one number per seed and the range claimed for it.

Arms of a seed share text and initial weights, so differences are taken within a seed and only their spread over seeds
counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from moe_toy.findings import paper
from moe_toy.findings.claim_tests_at_equal import (
    differs_at_equal,
    differs_beside,
    higher_at_equal,
    share_of_gain_at_equal,
)
from moe_toy.findings.comparison import Comparison, NotMeasuredError, fisher, require_columns
from moe_toy.findings.knee import find_knee, gain_over_chance


def with_derived(results: pd.DataFrame) -> pd.DataFrame:
    """With `srp_above_floor`: perfectly even routing has the SRP 2k / (E + k), whatever the model."""
    if "consistency/srp@16" not in results:
        return results
    floor = 2 * results.top_k / (results.num_experts + results.top_k)
    return results.assign(srp_above_floor=results["consistency/srp@16"] - floor)


def falling(results: pd.DataFrame, *, metric: str, arms: Sequence[str], negligible: float = 0.0) -> list[Comparison]:
    """Each arm scores higher than the next."""
    return [
        Comparison(f"{first} - {second}", _difference(results, metric, first, second), negligible=negligible)
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
    """One metric is higher than others of the same run, in the mean over those of `arms` that have both, over
    seeds that have all of these."""
    trained = results[results.arm.isin(arms)]
    comparisons = []
    for other in lower:
        columns = require_columns(trained, higher, other)
        both = _of_whole_seeds(trained.dropna(subset=columns)).groupby("seed")[columns].mean()
        name = f"{higher.rpartition('/')[2]} - {other.rpartition('/')[2]}"
        comparisons.append(Comparison(name, list(both[higher] - both[other])))
    return comparisons


def correlation_over_arms(results: pd.DataFrame, *, x: str, y: str, above: float) -> list[Comparison]:
    """Pearson's r over the arms of a seed, of seeds that have every arm and in which neither side is constant."""
    defined = _of_whole_seeds(results.dropna(subset=require_columns(results, x, y)))
    values = pd.Series([group[x].corr(group[y]) for _, group in defined.groupby("seed") if len(group) > 2], dtype=float)
    return [Comparison("r over arms", list(values.dropna()), above=above, correlation=True)]


def correlation_logged(results: pd.DataFrame, *, metric: str, arm: str, above: float) -> list[Comparison]:
    """A correlation that the runs of an arm report themselves."""
    return [Comparison(f"r in {arm}", list(_by_arm(results, metric, [arm])[arm]), above=above, correlation=True)]


def prediction_improves(
    results: pd.DataFrame,
    *,
    segment_lengths: Sequence[int],
    policies: Sequence[str],
    cache_ratios: Sequence[float],
    without: Sequence[str] = (),
) -> list[Comparison]:
    """Pearson's r, over arms and cache ratios, of SCH with a real cache grows with each segment length.

    r is taken over all arms but those named by `without`, at the ratios that their models can have, of seeds that have
    every one of these.
    """
    results = results[~results.arm.isin(without)]
    comparisons = []
    for policy in policies:
        curves = {length: f"cache/sch@{length}" for length in segment_lengths} | {policy: f"cache/{policy}"}
        points = _points(results, curves, cache_ratios)
        rows = [
            {length: seed[length].corr(seed[policy]) for length in segment_lengths}
            for _, seed in points.groupby("seed")
        ]
        z = pd.DataFrame(rows, columns=list(segment_lengths), dtype=float).dropna().map(fisher)
        for short, long in pairwise(segment_lengths):
            comparisons.append(Comparison(f"{policy}: z of r at {long} - at {short}", list(z[long] - z[short])))
    return comparisons


def knee(results: pd.DataFrame, *, segment_length: int, arm: str, near: float, margin: float) -> list[Comparison]:
    """The cache, relative to the active experts, at which the hit-rate curve of SCH has its knee.

    A curve has the points that its model can have; one that still gains over chance at its last point shows none.
    """
    prefix = f"cache/sch@{segment_length}/ratio_"
    ratios = sorted(float(name.removeprefix(prefix)) for name in results if name.startswith(prefix))
    if not ratios:
        raise NotMeasuredError(f"no column {prefix}...")
    require_columns(results, "num_moe_layers")
    values = []
    for _, run in results[results.arm == arm].iterrows():
        curve = pd.Series({ratio: run[f"{prefix}{ratio:g}"] for ratio in ratios}, dtype=float).dropna()
        if curve.empty:
            continue
        active, items = run.top_k * run.num_moe_layers, run.num_experts * run.num_moe_layers
        capacity = np.arange(math.ceil(curve.index[0] * active), int(curve.index[-1] * active) + 1)
        hit_rate = np.interp(capacity / active, curve.index, curve)
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
    values = pd.Series([row.rank().corr(published.rank()) for _, row in ours.iterrows()], dtype=float)
    return [Comparison("Spearman's rho", list(values.dropna()), above=above, correlation=True)]


def _difference(results: pd.DataFrame, metric: str, first: str, second: str) -> list[float]:
    scores = _by_arm(results, metric, [first, second])
    return list(scores[first] - scores[second])


def _by_arm(results: pd.DataFrame, metric: str, arms: Sequence[str]) -> pd.DataFrame:
    """A row per seed that has all of `arms`, a column per arm."""
    require_columns(results, metric)
    if absent := [arm for arm in arms if arm not in set(results.arm)]:
        raise NotMeasuredError(f"no finished arm {', '.join(absent)}")
    return results.pivot(index="seed", columns="arm", values=metric)[list(arms)].dropna()


def _points(results: pd.DataFrame, curves: Mapping[Any, str], cache_ratios: Sequence[float]) -> pd.DataFrame:
    """A row per seed, arm and cache ratio with a column per curve, of seeds that have every arm and ratio that any
    has: there is none where a ratio is no whole number of experts, or more than there are."""
    point = ["seed", "arm", "ratio"]
    names = {ratio: {key: f"{curve}/ratio_{ratio:g}" for key, curve in curves.items()} for ratio in cache_ratios}
    require_columns(results, *(name for of_ratio in names.values() for name in of_ratio.values()))
    parts = [
        results.assign(ratio=ratio)[[*point, *row.values()]].set_axis([*point, *row], axis="columns")
        for ratio, row in names.items()
    ]
    points = pd.concat(parts).dropna()
    wanted = len(points[["arm", "ratio"]].drop_duplicates())
    return points[points.groupby("seed").arm.transform("size") == wanted]


def _of_whole_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """The runs of seeds that have every arm: a number over arms means the same only over the same ones."""
    return results[results.groupby("seed").arm.transform("nunique") == results.arm.nunique()]


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
