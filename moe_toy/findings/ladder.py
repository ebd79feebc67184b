"""The ladder: what each change of the baseline does to a metric, at every size and length that was trained."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from moe_toy.errors import UserError
from moe_toy.findings import paper
from moe_toy.findings.student_t import mean_interval

SRP = "consistency/srp@16"
BASELINE = "baseline"
PUBLISHED = "the paper"


def climb(sweeps: Mapping[str, pd.DataFrame], metric: str = SRP) -> pd.DataFrame:
    """By how much `metric` of each arm differs from that of the baseline, in several sweeps and the paper.

    Returns a row per arm and rung, rungs by size and steps with the paper last: `rung`, `parameters` and `steps` (of
    the baseline; 0 where unknown), `arm`, `seeds`, `effect` (the mean of the differences within a seed), `ci_low` and
    `ci_high` (its 95 % interval; NaN for a single seed, as the paper's). `sweeps` are results by a name that errors can
    tell. Raises `UserError` for a sweep without baseline or metric, for one whose runs differ in length, and for two of
    the same size and length.
    """
    rungs: dict[tuple[int, int], str] = {}
    tables = []
    for name, results in sweeps.items():
        key = _size(name, results, metric)
        if key in rungs:
            raise UserError(f"{rungs[key]} and {name} are of the same size and length; give one of them")
        rungs[key] = name
        tables.append(_effects(results, metric).assign(rung=_label(*key), parameters=key[0], steps=key[1]))
    climbed = [table for _, table in sorted(zip(rungs, tables, strict=True), key=lambda pair: pair[0])]
    published = paper.as_sweep()
    if metric in published:
        label = f"{_label(paper.PARAMETERS, 0)}, {PUBLISHED}"
        climbed.append(_effects(published, metric).assign(rung=label, parameters=paper.PARAMETERS, steps=0))
    columns = ["rung", "parameters", "steps", "arm", "seeds", "effect", "ci_low", "ci_high"]
    return pd.concat(climbed, ignore_index=True)[columns]


def _size(name: str, results: pd.DataFrame, metric: str) -> tuple[int, int]:
    """Parameters of the baseline and optimiser steps of the sweep of this name."""
    baseline = results[results.arm == BASELINE]
    if baseline.empty:
        raise UserError(f"{name} has no finished arm {BASELINE}; every effect is a difference from it")
    if metric not in results:
        raise UserError(f"{name} has no {metric}; give sweeps that logged it")
    steps = set(results.step.dropna()) if "step" in results else set()
    if len(steps) > 1:
        raise UserError(
            f"{name} has runs of {', '.join(f'{step:g}' for step in sorted(steps))} steps; give sweeps whose runs are "
            "equally long"
        )
    return int(baseline.total_parameters.iloc[0]), int(max(steps, default=0))


def _effects(results: pd.DataFrame, metric: str) -> pd.DataFrame:
    scores = results.pivot(index="seed", columns="arm", values=metric)
    rows = []
    for arm in (arm for arm in results.arm.unique() if arm != BASELINE):
        if len(differences := (scores[arm] - scores[BASELINE]).dropna()):
            mean, low, high = mean_interval(list(differences))
            bounds = (low, high) if len(differences) > 1 else (math.nan, math.nan)
            rows.append((arm, len(differences), mean, *bounds))
    return pd.DataFrame(rows, columns=["arm", "seeds", "effect", "ci_low", "ci_high"])


def _label(parameters: int, steps: int) -> str:
    return f"{parameters / 1e6:.0f}M" + (f", {steps} steps" if steps else "")
