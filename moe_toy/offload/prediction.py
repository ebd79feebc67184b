"""What a token takes: computation, waiting for the first byte of each round of reads, and moving bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
from jaxtyping import Float

from moe_toy.offload.cache import Cache, Step


@dataclass(frozen=True)
class Prediction:
    """Seconds of a token = compute + rounds x latency + bytes x seconds_per_byte. A round is a read, or as many at once
    as there are threads."""

    compute: float
    latency: float
    seconds_per_byte: float

    def __call__(
        self, rounds: Float[np.ndarray, " *token"], num_bytes: Float[np.ndarray, " *token"]
    ) -> Float[np.ndarray, " *token"]:
        return self.compute + rounds * self.latency + num_bytes * self.seconds_per_byte

    @staticmethod
    def fit(
        seconds: Float[np.ndarray, " token"],
        rounds: Float[np.ndarray, " token"],
        num_bytes: Float[np.ndarray, " token"],
    ) -> Prediction:
        """Least squares of relative errors, in which nothing takes less than no time."""
        columns = np.stack([np.ones_like(seconds), rounds, num_bytes], 1)
        scale = np.maximum(columns.max(0), 1)
        kept = np.array([True, True, np.linalg.matrix_rank(columns / scale) == 3])  # else bytes go with rounds
        while True:
            found = np.zeros(3)
            relative = (columns / scale)[:, kept] / seconds[:, None]
            found[kept] = np.linalg.lstsq(relative, np.ones_like(seconds), rcond=None)[0]
            if (found >= 0).all():
                return Prediction(*(float(value) for value in found / scale))
            kept &= found > 0


class ForcedMisses(Cache):
    """A cache that holds all experts and yet reads `misses` of every lookup again: what these cost, with all that goes
    on around them, and nothing else."""

    def __init__(self, misses: int, num_slots: int | None = None) -> None:
        self.misses = misses
        self.turn = None if num_slots is None else cycle(range(num_slots))
        """Slots in turn, for a replay, which does not read them; None: every item has its own."""

    def look_up(self, items: Sequence[int]) -> list[Step]:
        slots = items if self.turn is None else islice(self.turn, len(items))
        return [Step(item, slot, n < self.misses) for n, (item, slot) in enumerate(zip(items, slots, strict=True))]


def points(top_k: int) -> list[tuple[int, bool]]:
    """(misses of every lookup, whether only the first page of each row is read) to calibrate by."""
    counts = sorted({1, max(top_k // 2, 1), top_k})
    return [(0, False), *((count, False) for count in counts), (1, True), (top_k, True)]
