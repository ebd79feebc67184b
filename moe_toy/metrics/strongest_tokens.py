"""The tokens that belong most to each expert, as a table for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from moe_toy.metrics.vocabulary import Kind, VocabularyScores

if TYPE_CHECKING:
    import pandas as pd


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
