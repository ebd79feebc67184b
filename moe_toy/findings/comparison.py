"""One number per seed, and the range in which a claim says that their mean lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from moe_toy.findings.student_t import mean_interval

if TYPE_CHECKING:
    import pandas as pd


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
    negligible: float = 0.0
    """The largest difference, in the units of the values, that does not matter; 0 where a claim does not say."""

    def __post_init__(self) -> None:
        if not len(self.values):
            raise NotMeasuredError(f"{self.name}: no seed has all of it")
        if wrong := [value for value in self.values if not math.isfinite(value)]:
            raise NotMeasuredError(f"{self.name}: a seed has {wrong[0]}")

    def interval(self) -> tuple[float, float, float]:
        if not self.correlation:
            return mean_interval(self.values)
        mean, low, high = (math.tanh(bound) for bound in mean_interval(self._transformed()))
        return mean, low, high

    def effect_size(self) -> float:
        values = self._transformed() if self.correlation else self.values
        bound = fisher(self._bound()) if self.correlation else self._bound()
        spread = stdev(values) if len(values) > 1 else 0.0
        return (fmean(values) - bound) / spread if spread else math.nan

    def claimed(self) -> str:
        if math.isinf(self.above):
            return f"below {self.below:g}"
        return f"above {self.above:g}" if math.isinf(self.below) else f"{self.above:g} to {self.below:g}"

    def _bound(self) -> float:
        """The bound of a range with one; of a range between two, zero."""
        if math.isinf(self.above):
            return self.below
        return self.above if math.isinf(self.below) or self.correlation else 0.0

    def _transformed(self) -> list[float]:
        return [fisher(r) for r in self.values]


def fisher(r: float) -> float:
    """NaN stays NaN: in this order `max` and `min` keep it."""
    return math.atanh(min(max(r, -1 + 1e-9), 1 - 1e-9))


def require_columns(results: pd.DataFrame, *names: str) -> list[str]:
    """These names; raises `NotMeasuredError` where the results lack one of them."""
    if absent := [name for name in names if name not in results]:
        raise NotMeasuredError(f"no column {', '.join(absent)}")
    return list(names)
