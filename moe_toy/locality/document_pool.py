"""A document keeps to the experts that its tokens so far liked best."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from pydantic import PositiveInt, validate_call
from torch import Tensor

from moe_toy.errors import UserError
from moe_toy.locality.base import LocalityScheme, Steer

PRIME = 2_654_435_761


class DocumentPool(LocalityScheme):
    """A token may use the `size` experts with the largest sum of router probabilities over the tokens of its sequence
    up to itself: the pools of EMO (arXiv 2605.06663), made causal.

    In training the size is drawn for each sequence from `smallest` to `largest`, by its own tokens, so that looking
    ahead and recomputing find the same; in evaluation it is `evaluated`.
    """

    @validate_call(config={"strict": True})
    def __init__(self, *, smallest: PositiveInt, largest: PositiveInt, evaluated: PositiveInt) -> None:
        super().__init__()
        if not smallest <= largest:
            raise UserError(f"locality.smallest ({smallest}) exceeds locality.largest ({largest}); exchange them")
        self.smallest, self.largest, self.evaluated = smallest, largest, evaluated

    @property
    def settings(self) -> dict[str, Any]:
        sizes = {"smallest": self.smallest, "largest": self.largest, "evaluated": self.evaluated}
        return {"scheme": "document_pool", **sizes}

    def check(self, *, num_experts: int, top_k: int) -> None:
        for name, size in self.settings.items():
            if name != "scheme" and not top_k <= size <= num_experts:
                raise UserError(
                    f"locality.{name} ({size}) is no size of a pool between moe.top_k ({top_k}) and moe.num_experts "
                    f"({num_experts}); give one that is"
                )

    def steer(self, token_ids: Int[Tensor, "batch seq"]) -> Steer:
        sizes = torch.full((len(token_ids),), self.evaluated, device=token_ids.device)
        if self.training:
            places = torch.arange(1, token_ids.shape[1] + 1, device=token_ids.device)
            mixed = ((token_ids.long() + 1) * places).sum(-1) * PRIME % 2**32 // 2**8
            sizes = self.smallest + mixed % (self.largest - self.smallest + 1)
        return partial(self._keep_to_pool, sizes)

    @staticmethod
    @torch.no_grad()
    def _keep_to_pool(
        sizes: Int[Tensor, " batch"],
        ranking: Float[Tensor, "batch seq expert"],
        scores: Float[Tensor, "batch seq expert"],
        top_k: int,
    ) -> Float[Tensor, "batch seq expert"]:
        order = scores.cumsum(1).sort(dim=-1, descending=True, stable=True).indices
        beyond = torch.arange(scores.shape[-1], device=scores.device) >= sizes[:, None, None]
        left_out = torch.zeros_like(order, dtype=torch.bool).scatter_(-1, order, beyond.expand_as(order))
        return ranking.masked_fill(left_out, -torch.inf)
