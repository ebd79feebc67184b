"""The compiled loop of cache-prior routing."""

from typing import no_type_check

import numpy as np

from moe_toy.metrics.compiled import compiled


@compiled
@no_type_check
def _range(row: np.ndarray) -> float:
    """Of the experts that are not left out."""
    low, high = np.inf, -np.inf
    for value in row:
        if value != -np.inf:
            low, high = min(low, value), max(high, value)
    return high - low


@compiled
@no_type_check
def _use_best(row: np.ndarray, top_k: int, used_at: np.ndarray, now: int) -> None:
    """Note the time of use of the `top_k` best, one after another; of equals the lower expert index ranks higher."""
    for rank in range(top_k):
        best = -1
        for expert in range(len(row)):
            if used_at[expert] < now and (best < 0 or row[expert] > row[best]):
                best = expert
        used_at[best] = now + rank


@compiled
@no_type_check
def prefer_cached(ranking: np.ndarray, top_k: int, capacity: int, strength: float) -> None:
    """Add the bonus to `ranking` (batch, seq, expert) in place. A cache holds the `capacity` experts used last."""
    batch, seq, num_experts = ranking.shape
    for sequence in range(batch):
        used_at = np.full(num_experts, -1)
        mean_range = 0.0
        for token in range(seq):
            row = ranking[sequence, token]
            mean_range += (_range(row) - mean_range) / (token + 1)
            oldest = np.sort(used_at)[num_experts - capacity]
            for expert in range(num_experts):
                if used_at[expert] >= max(oldest, 0):
                    row[expert] += strength * mean_range
            _use_best(row, top_k, used_at, token * top_k)
