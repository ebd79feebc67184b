"""Which experts prefer which domain, as lists."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from moe_toy.report.page import html_table

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 12
"""Experts of a domain that are named, those with the largest lift."""


def expert_lists(experts: pd.DataFrame, layer_ids: Sequence[int]) -> tuple[str, str]:
    """A sentence that says how far experts have split up, and the HTML of one list per layer, the last one open."""
    if experts.domain.nunique() < 2:
        return "", ""
    split = experts.belongs.groupby(experts.layer).sum()
    most = int(split.idxmax())
    sentence = (
        f"Of {experts.expert.nunique()} experts in layer {layer_ids[most]}, {split[most]} belong to one domain, which "
        "chooses them at least twice as often as the others do on average. "
    )
    lists = [
        f"<details{' open' if layer == len(layer_ids) - 1 else ''}><summary>Experts by domain, layer "
        f"{escape(str(layer_ids[int(layer)]))}</summary>{html_table(_of_layer(rows))}</details>"
        for layer, rows in experts.groupby("layer")
    ]
    note = (
        "Each expert stands with the domain that chooses it most often. In brackets: that domain's share of its tokens "
        "(domains counted as equally large), the share of the domain's tokens that choose it, and the first over an "
        "even share. An expert that no domain chooses twice as often as the others do on average belongs to nobody."
    )
    return sentence, f'<p class="note">{note}</p>{"".join(lists)}'


def _of_layer(rows: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd  # half a second

    found = []
    for domain, own in rows[rows.belongs].sort_values("lift", ascending=False, kind="stable").groupby("domain"):
        named = [
            f"{expert.expert} ({100 * expert.share:.0f} %, {100 * expert.domain_share:.0f} %, {expert.lift:.1f}×)"
            for expert in own.head(SHOWN).itertuples()
        ]
        more = [f"and {len(own) - SHOWN} more"] if len(own) > SHOWN else []
        found.append((str(domain), len(own), ", ".join(named + more)))
    nobody, dead = rows[~rows.belongs & (rows.tokens > 0)], rows[rows.tokens == 0]
    for name, others in (("belong to nobody", nobody), ("dead", dead)):
        numbers = [str(expert) for expert in others.expert]
        found.append((name, len(others), ", ".join(numbers)))
    return pd.DataFrame(found, columns=["domain", "how many", "experts"])
