"""The compiled loop of rolling residency."""

from typing import no_type_check

import numpy as np

from moe_toy.metrics.compiled import compiled


@compiled
@no_type_check
def _best(row: np.ndarray, resident: np.ndarray) -> int:
    """The highest-ranked expert that is not resident."""
    best = -1
    for expert in range(len(row)):
        if not resident[expert] and (best < 0 or row[expert] > row[best]):
            best = expert
    return best


@compiled
@no_type_check
def _lowest(row: np.ndarray, resident: np.ndarray) -> int:
    """The lowest-ranked resident."""
    lowest = -1
    for expert in range(len(row)):
        if resident[expert] and (lowest < 0 or row[expert] <= row[lowest]):
            lowest = expert
    return lowest


@compiled
@no_type_check
def find_residents(ranking: np.ndarray, top_k: int, swaps: int, resident: np.ndarray) -> None:
    """Fill `resident` (batch, seq, expert). Of equals the lower expert index ranks higher, as everywhere."""
    batch, seq, num_experts = ranking.shape
    for sequence in range(batch):
        now = resident[sequence, 0]
        for _ in range(top_k):
            now[_best(ranking[sequence, 0], now)] = True
        for token in range(1, seq):
            row, now = ranking[sequence, token], resident[sequence, token]
            now[:] = resident[sequence, token - 1]
            for _ in range(min(swaps, num_experts - top_k)):
                best, lowest = _best(row, now), _lowest(row, now)
                if row[best] < row[lowest] or (row[best] == row[lowest] and best > lowest):
                    break
                now[best], now[lowest] = True, False
