"""Where a model stands among those of the paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from moe_toy.findings.paper import GROUPS
from moe_toy.report.figures.style import BLUE, INK, ORANGE, VERMILION, new_figure

if TYPE_CHECKING:
    import pandas as pd

LOW, HIGH, MARGIN = 0.18, 0.83, 0.03
"""Between which SRP the models of the paper lie, and what is left free beside them."""
STUDIES = {"published": ("published models", BLUE, "circle"), "toy": ("the paper's toy models", ORANGE, "square")}


def srp_among_models(numbers: pd.DataFrame, measured: Mapping[str, float]) -> go.Figure:
    """All models in the order of their SRP over 16 tokens; `measured` are ours, by name."""
    shown = numbers.dropna(subset=["srp_16"])
    height = 90 + 19 * (len(shown) + len(measured))
    figure = new_figure(x="SRP over 16 tokens", y="", height=height)
    for study, (name, colour, symbol) in STUDIES.items():
        rows = shown[shown.study == study]
        marker = {"color": colour, "symbol": symbol, "size": 8}
        figure.add_scatter(x=rows.srp_16, y=rows.model, name=name, mode="markers", marker=marker)
    figure.add_scatter(
        x=list(measured.values()),
        y=[f"<b>{name}</b>" for name in measured],
        name="measured here",
        mode="markers",
        marker={"color": VERMILION, "symbol": "star", "size": 14},
    )
    figure.update_traces(hovertemplate="%{y}: %{x:.3f}")
    upper = HIGH + MARGIN
    for name, least in GROUPS.items():
        figure.add_annotation(
            x=(least + upper) / 2, y=1, yref="paper", yanchor="bottom", text=name, showarrow=False, font={"size": 11}
        )
        figure.add_vline(least, line={"color": INK, "width": 1, "dash": "dot"})
        upper = least
    figure.update_yaxes(type="category", categoryorder="total ascending", tickfont={"size": 11}, showgrid=False)
    low, high = min(LOW, *measured.values()), max(HIGH, *measured.values())
    return figure.update_xaxes(range=[low - MARGIN, high + MARGIN]).update_layout(
        legend={"y": -0.08, "yanchor": "top"}, margin={"t": 24}
    )


def sch_and_srp(numbers: pd.DataFrame, measured: pd.DataFrame) -> go.Figure:
    """SCH at 1.5 times the active experts against SRP, both over 16 tokens. `measured`: model, srp_16, sch_1.5."""
    figure = new_figure(x="SRP over 16 tokens", y="SCH at cache ratio 1.5", height=400)
    for study, (name, colour, symbol) in STUDIES.items():
        rows = numbers[numbers.study == study].dropna(subset=["srp_16", "sch_1.5"])
        marker = {"color": colour, "symbol": symbol, "size": 8, "opacity": 0.8}
        figure.add_scatter(x=rows.srp_16, y=rows["sch_1.5"], text=rows.model, name=name, mode="markers", marker=marker)
    figure.add_scatter(
        x=measured.srp_16,
        y=measured["sch_1.5"],
        text=measured.model,
        name="measured here",
        mode="markers",
        marker={"color": VERMILION, "symbol": "star", "size": 14},
    )
    return figure.update_traces(hovertemplate="%{text}: SRP %{x:.3f}, SCH %{y:.3f}<extra></extra>")
