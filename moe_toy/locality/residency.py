"""Experts stay: from one token to the next, at most a few of the chosen are exchanged."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import NonNegativeInt, validate_call
from torch import Tensor

from moe_toy.errors import UserError
from moe_toy.locality.base import LocalityScheme, Steer


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

    @property
    def settings(self) -> dict[str, Any]:
        return {"scheme": "residency", "swaps": self.swaps}

    def check(self, *, num_experts: int, top_k: int) -> None:
        if self.swaps >= top_k:
            raise UserError(
                f"locality.swaps ({self.swaps}) exchanges all of moe.top_k ({top_k}) experts, so it limits nothing; "
                "lower it, or choose locality=none"
            )

    def steer(self, token_ids: Int[Tensor, "batch seq"]) -> Steer:
        return self._keep_residents

    @torch._disable_dynamo  # loads the compiler when first called; a loop over tokens on the CPU
    @torch.no_grad()
    def _keep_residents(
        self, ranking: Float[Tensor, "batch seq expert"], scores: Float[Tensor, "batch seq expert"], top_k: int
    ) -> Float[Tensor, "batch seq expert"]:
        from moe_toy.locality.residency_kernel import find_residents  # numba takes half a second

        resident = np.zeros(ranking.shape, dtype=np.bool_)
        find_residents(ranking.cpu().numpy(), top_k, self.swaps, resident)
        return ranking.masked_fill(torch.from_numpy(~resident).to(ranking.device), -torch.inf)
