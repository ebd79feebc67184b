"""Vocabulary specialization: how much of the tokens that an expert leads belongs to it alone.

(Liang et al. 2025, arXiv 2505.16056)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float64, Int, Int64
from torch import Tensor

from moe_toy.errors import UserError
from moe_toy.metrics.base import RoutingMetric
from moe_toy.routing import RoutingTrace

if TYPE_CHECKING:
    import pandas as pd

MIN_TOKEN_COUNT = 20
"""Rarer token ids say nothing about the vocabulary of an expert."""
NUM_STRONGEST = 15
"""How many tokens of each expert its specialization is the mean of."""
Kind = Literal["input", "predicted", "target"]
"""Whose tokens: the one at a position, the one predicted there, the one that follows."""


@dataclass(frozen=True)
class VocabularyScores:
    value: Float64[Tensor, "layer expert"]
    """Mean strength of the tokens an expert owns, in [1 / num_experts, 1]; NaN if it owns none."""
    mean: Float64[Tensor, ""]
    """Over the experts that own a token."""
    owned: Int64[Tensor, "layer expert"]
    """How many token ids each expert owns."""
    strongest_ids: Int64[Tensor, "layer expert rank"]
    """The token ids an expert owns, strongest first, then most frequent first; -1 where it owns fewer."""
    strongest: Float64[Tensor, "layer expert rank"]
    """Their strengths; NaN where there is none."""


def vocabulary_scores(
    counts: Int[Tensor, "layer expert vocab"],
    min_token_count: int = MIN_TOKEN_COUNT,
    num_strongest: int = NUM_STRONGEST,
) -> VocabularyScores:
    """Score how often each token id met each expert as the best-ranked one.

    The owner of an id is the expert that leads most of its occurrences (the lowest on a tie), its strength the share
    that the owner leads. Ids that occur fewer than `min_token_count` times count for nobody.
    """
    num_layers, num_experts, _ = counts.shape
    total = counts.sum(1)
    lead, owner = counts.amax(1), counts.argmax(1)  # argmax: the first of equals
    strength = lead / total.double()
    kept = total >= max(min_token_count, 1)
    empty = torch.zeros(num_layers, num_experts, dtype=torch.float64, device=counts.device)
    owned = empty.long().scatter_add_(-1, owner, kept.long())
    value = empty.scatter_add(-1, owner, strength.where(kept, 0.0)) / owned
    ids = torch.full((num_layers, num_experts, num_strongest), -1, device=counts.device)
    strongest = torch.full(ids.shape, torch.nan, dtype=torch.float64, device=counts.device)
    for layer in range(num_layers):
        layer_ids, experts, ranks = _ranked(owner[layer], strength[layer], total[layer], kept[layer], num_strongest)
        ids[layer, experts, ranks] = layer_ids
        strongest[layer, experts, ranks] = strength[layer, layer_ids]
    return VocabularyScores(value=value, mean=value.nanmean(), owned=owned, strongest_ids=ids, strongest=strongest)


class VocabularySpecialization(RoutingMetric):
    """Vocabulary specialization of every expert for each of `kinds`; `compute` returns a dict by kind.

    State is (layer, expert, vocab) in int32 for each kind: a count holds 2^31 occurrences of one token id, and a
    model of 8 layers, 64 experts and 50,000 ids needs 100 MB a kind. A trace without `predicted_ids` adds nothing
    to "predicted".
    """

    def __init__(
        self,
        *,
        num_layers: int,
        num_experts: int,
        vocab_size: int,
        min_token_count: int = MIN_TOKEN_COUNT,
        kinds: Sequence[Kind] = get_args(Kind),
        num_strongest: int = NUM_STRONGEST,
    ) -> None:
        super().__init__(num_layers=num_layers, num_experts=num_experts)
        self.vocab_size = vocab_size
        self.min_token_count = min_token_count
        self.kinds = tuple(kinds)
        self.num_strongest = num_strongest
        for kind in self.kinds:
            self.add_count(kind, num_layers, num_experts, vocab_size, dtype=torch.int32)

    def update(self, trace: RoutingTrace) -> None:
        self.check(trace)
        if not trace.names_leaders:
            raise UserError("the trace does not say which expert leads which token id; vocabulary needs both")
        best = trace.expert_ids[..., 0].long()  # (layer, batch, seq)
        for kind in self.kinds:
            if kind == "target":
                self._add(kind, best[..., :-1], trace.token_ids[:, 1:])
            elif kind == "input":
                self._add(kind, best, trace.token_ids)
            elif trace.predicted_ids is not None:
                self._add(kind, best, trace.predicted_ids)

    def _add(self, kind: str, best: Int64[Tensor, "layer batch seq"], token_ids: Int[Tensor, "batch seq"]) -> None:
        tokens = token_ids.long()
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.vocab_size:
            raise UserError(
                f"{kind} token ids range over {int(tokens.min())}..{int(tokens.max())}, "
                f"but vocab_size is {self.vocab_size}; pass the size of the model's vocabulary"
            )
        layer = torch.arange(self.num_layers, device=best.device)[:, None, None]
        cell = ((layer * self.num_experts + best) * self.vocab_size + tokens).flatten()
        counts = getattr(self, kind).view(-1)
        counts.scatter_add_(0, cell, torch.ones_like(cell, dtype=counts.dtype))

    def compute(self) -> dict[str, VocabularyScores]:
        return {
            kind: vocabulary_scores(getattr(self, kind), self.min_token_count, self.num_strongest)
            for kind in self.kinds
        }


def _ranked(
    owner: Int64[Tensor, " vocab"],
    strength: Float64[Tensor, " vocab"],
    total: Int64[Tensor, " vocab"],
    kept: Tensor,
    num_strongest: int,
) -> tuple[Int64[Tensor, " token"], Int64[Tensor, " token"], Int64[Tensor, " token"]]:
    """Ids, owners and ranks of the strongest kept tokens of each owner."""
    ids = kept.nonzero()[:, 0].cpu()
    owner, strength, total = (side[ids.to(side.device)].cpu() for side in (owner, strength, total))
    order = torch.from_numpy(np.lexsort((ids, -total, -strength, owner)))
    ids, owner = ids[order], owner[order]
    rank = torch.arange(len(ids)) - torch.searchsorted(owner, owner)
    shown = rank < num_strongest
    device = kept.device
    return ids[shown].to(device), owner[shown].to(device), rank[shown].to(device)


def strongest_tokens(
    scores: Mapping[Kind, VocabularyScores], token_text: Callable[[int], str], layer_ids: Sequence[int]
) -> pd.DataFrame:
    """One row per token that an expert owns, at most as many as were ranked: layer, expert, kind, rank (from 0),
    token_id, token, strength. `layer` is numbered as `layer_ids` says."""
    import pandas as pd  # half a second

    rows = []
    for kind, score in scores.items():
        for layer, expert, rank in (score.strongest_ids >= 0).nonzero().tolist():
            token_id = score.strongest_ids[layer, expert, rank].item()
            strength = score.strongest[layer, expert, rank].item()
            rows.append((layer_ids[layer], expert, kind, rank, token_id, token_text(token_id), strength))
    return pd.DataFrame(rows, columns=["layer", "expert", "kind", "rank", "token_id", "token", "strength"])
