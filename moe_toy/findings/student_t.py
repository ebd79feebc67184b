"""Intervals for the mean of a few measurements: Student's t, exact for whole degrees of freedom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

CONFIDENCE = 0.95


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """The mean of independent values and the bounds of its interval; infinitely wide for a single value, and around NaN
    where one is not finite."""
    mean = fmean(values) if all(map(math.isfinite, values)) else math.nan
    if len(values) < 2 or math.isnan(mean):
        return mean, -math.inf, math.inf
    half = quantile((1 + confidence) / 2, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def quantile(probability: float, freedom: int) -> float:
    """The t below which a share `probability`, at least 0.5, of the distribution lies."""
    low, high = 0.0, 1.0
    while cumulative(high, freedom) < probability:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if cumulative(middle, freedom) < probability else (low, middle)
    return high


def cumulative(t: float, freedom: int) -> float:
    """P(T <= t) for t >= 0 by the finite series of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for n in range(odd, freedom - 1, 2):  # cos + 2/3 cos^3 + ..., or 1 + 1/2 cos^2 + ...
        total += term
        term *= (n + 1) / (n + 2) * cosine**2
    within = (angle + sine * total) * 2 / math.pi if odd else sine * total
    return (1 + within) / 2
