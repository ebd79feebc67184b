"""Experts stay: from one token to the next, at most a few of the chosen are exchanged."""

from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import NonNegativeInt, validate_call
from torch import Tensor

from moe_toy.locality.base import Allow, LocalityScheme
from moe_toy.metrics.compiled import compiled


class Residency(LocalityScheme):
    """Rolling residency: the first token of a sequence takes its `top_k` experts; each later one keeps those of the
    token before it, but for at most `swaps` exchanges, in each of which the best expert that is not resident replaces
    the lowest-ranked resident if it ranks higher. A token looks at no later one, so the limit holds while decoding.

    Weights are the softmax over the residents. Balance and z-loss see the scores of all experts: a loss can still
    raise one that is not resident.
    """

    @validate_call(config={"strict": True})
    def __init__(self, *, swaps: NonNegativeInt) -> None:
        super().__init__()
        self.swaps = swaps

    def limit(self, token_ids: Int[Tensor, "batch seq"]) -> Allow:
        return self._residents

    @torch.no_grad()
    def _residents(
        self, ranking: Float[Tensor, "batch seq expert"], scores: Float[Tensor, "batch seq expert"], top_k: int
    ) -> Bool[Tensor, "batch seq expert"]:
        resident = np.zeros(ranking.shape, dtype=np.bool_)
        _scan(ranking.cpu().numpy(), top_k, self.swaps, resident)
        return torch.from_numpy(resident).to(ranking.device)


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
def _scan(ranking: np.ndarray, top_k: int, swaps: int, resident: np.ndarray) -> None:
    """Fill `resident`. Of equals the lower expert index ranks higher, as everywhere."""
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
