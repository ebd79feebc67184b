"""Evaluation only: a token prefers the experts that a cache holds."""

from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from moe_toy.errors import UserError
from moe_toy.locality.base import LocalityScheme, Steer


class CachePrior(LocalityScheme):
    """Cache-prior routing (arXiv 2412.00099), for a trained model of any scheme: when experts are chosen, those that an
    LRU cache holds rank higher, by `strength` times the mean range of what experts rank by, over the tokens of the
    sequence so far. Mixing weights know nothing of it, but go to the experts that are chosen.

    Each layer has a cache of its own for `capacity` experts, empty at the start of a sequence. A limit of the model
    comes first: the prior chooses among what it allows, so it changes nothing beside residency.
    """

    def __init__(self, limit: LocalityScheme, *, strength: float, capacity: int) -> None:
        super().__init__()
        self.limit = limit
        self.strength, self.capacity = strength, capacity

    def check(self, *, num_experts: int, top_k: int) -> None:
        self.limit.check(num_experts=num_experts, top_k=top_k)
        if not top_k <= self.capacity <= num_experts:
            raise UserError(
                f"a cache of {self.capacity} experts does not fit {num_experts} experts of which a token activates "
                f"{top_k}; give a target.cache_ratio between 1 and {num_experts / top_k:g}"
            )

    def steer(self, token_ids: Int[Tensor, "batch seq"]) -> Steer:
        return partial(self._prefer_cached, self.limit.steer(token_ids))

    @torch.no_grad()
    def _prefer_cached(
        self,
        limit: Steer | None,
        ranking: Float[Tensor, "batch seq expert"],
        scores: Float[Tensor, "batch seq expert"],
        top_k: int,
    ) -> Float[Tensor, "batch seq expert"]:
        from moe_toy.locality.cache_prior_kernel import prefer_cached  # numba takes half a second

        if limit is not None:
            ranking = limit(ranking, scores, top_k)
        preferred = ranking.cpu().contiguous().numpy().copy()
        prefer_cached(preferred, top_k, self.capacity, np.float64(self.strength))
        return torch.from_numpy(preferred).to(ranking.device)
