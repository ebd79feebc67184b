"""Text with the experts of every token, and the tokens that experts own, as data for the page's scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

KINDS = {"input": "read by the expert", "predicted": "predicted", "target": "that come next"}
MOST_IDS = 100_000
"""Expert ids of passages that a page holds; later passages are left out."""
MOST_TOKENS = 40_000
"""Strongest tokens that a page holds."""
VISIBLE = str.maketrans({" ": "␣", "\n": "↵", "\t": "→", "\r": "↵"})


def passages(text: pd.DataFrame, layer_ids: Sequence[int]) -> dict[str, Any]:
    """`passages`: title, tokens in order, and experts[layer][token], best first."""
    shown, ids = [], 0
    text = text.assign(domain=text.domain.fillna("")).sort_values(["layer", "position", "rank"])
    several = text.groupby("domain").sequence.nunique() > 1
    for (domain, sequence), rows in text.groupby(["domain", "sequence"]):
        tokens = rows[["position", "token"]].drop_duplicates("position").token.tolist()
        experts = rows.expert.to_numpy(int).reshape(len(layer_ids), len(tokens), -1)
        ids += experts.size
        if shown and ids > MOST_IDS:
            break
        title = f"{domain} sequence {sequence}".strip() if several[domain] or not domain else domain
        shown.append({"title": title, "tokens": tokens, "experts": experts.tolist()})
    return {"layers": [str(layer) for layer in layer_ids], "passages": shown}


def strongest_tokens(tokens: pd.DataFrame, layer_ids: Sequence[int], num_experts: int) -> dict[str, Any]:
    """tokens[kind][layer][expert]: up to 12 pairs of text, with spaces made visible, and strength, strongest first."""
    kinds = [kind for kind in KINDS if (tokens.kind == kind).any()]
    shown = min(max(MOST_TOKENS // (len(kinds) * len(layer_ids) * num_experts), 1), 12)
    owned: list[list[list[list[Any]]]] = [[[[] for _ in range(num_experts)] for _ in layer_ids] for _ in kinds]
    for row in tokens[tokens["rank"] < shown].sort_values("rank").itertuples():
        pair = [row.token.translate(VISIBLE), round(float(row.strength), 2)]
        owned[kinds.index(row.kind)][int(row.layer)][int(row.expert)].append(pair)
    return {"layers": [str(layer) for layer in layer_ids], "kinds": [KINDS[kind] for kind in kinds], "tokens": owned}
