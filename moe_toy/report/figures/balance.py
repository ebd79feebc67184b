"""Load balance of experts: over everything (global), and within sequences and segments (local)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from moe_toy.report.figures.style import BLUE, ORANGE, VERMILION, new_figure

if TYPE_CHECKING:
    import pandas as pd

SCOPES = {
    "segment": ("within 16 tokens", VERMILION, "diamond"),
    "sequence": ("within a sequence", ORANGE, "square"),
    "corpus": ("over everything", BLUE, "circle"),
}


def imbalance_by_layer(balance: pd.DataFrame, layer_ids: Sequence[int]) -> go.Figure:
    """Coefficient of variation of load: global balance can be even while every segment is not."""
    figure = new_figure(x="transformer layer", y="imbalance (CV of load)")
    rows = balance[balance.domain.isna()].sort_values("layer")
    for scope, (name, colour, symbol) in SCOPES.items():
        shown = rows[rows.scope == scope]
        figure.add_scatter(
            x=[str(layer_ids[row]) for row in shown.layer],
            y=shown.cv,
            name=name,
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"symbol": symbol, "size": 8},
            hovertemplate="%{y:.2f}",
        )
    return figure.update_xaxes(type="category").update_yaxes(rangemode="tozero").update_layout(hovermode="x unified")


def imbalance_by_domain(balance: pd.DataFrame) -> go.Figure:
    """The same for each domain, mean over layers."""
    rows = balance[balance.domain.notna()].groupby(["domain", "scope"], as_index=False).cv.mean()
    order = rows[rows.scope == "corpus"].sort_values("cv").domain.astype(str)
    figure = new_figure(x="imbalance (CV of load), mean over layers", y="", height=110 + 24 * len(order))
    for scope, (name, colour, symbol) in SCOPES.items():
        shown = rows[rows.scope == scope]
        figure.add_scatter(
            x=shown.cv,
            y=shown.domain.astype(str),
            name="over the domain" if scope == "corpus" else name,
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 9},
            hovertemplate="%{y}: %{x:.2f}",
        )
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=order.tolist())
    return figure.update_xaxes(rangemode="tozero")
