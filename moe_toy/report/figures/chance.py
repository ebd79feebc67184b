"""What scores would be by chance: the floor, and null models that keep balance, domain, topic or vocabulary only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import plotly.graph_objects as go

from moe_toy.report.figures.consistency import interval
from moe_toy.report.figures.style import BLUE, DOTTED, GREEN, ORANGE, PINK, SKY, VERMILION, new_figure

if TYPE_CHECKING:
    import pandas as pd

NULLS = {
    "raw": ("the sequences that are shuffled", SKY, "solid"),
    "sequence": ("shuffled in each sequence", VERMILION, "dash"),
    "domain": ("in each domain", ORANGE, "dashdot"),
    "corpus": ("over the corpus", PINK, "dot"),
    "token": ("among equal tokens", GREEN, "longdash"),
}
PARTS = {  # name -> (what it is more than, what it is, colour)
    "balance": (None, "corpus", PINK),
    "domain": ("corpus", "domain", ORANGE),
    "topic": ("domain", "sequence", SKY),
    "order of tokens": ("sequence", "raw", BLUE),
}


def srp_by_length(srp: pd.DataFrame, nulls: pd.DataFrame | None, floor: float) -> go.Figure:
    """The model's SRP over segment length, above its null models and the floor."""
    figure = new_figure(x="segment length (tokens)", y="SRP")
    rows = srp[(srp.level == "model") & srp.domain.isna()].sort_values("segment_length")
    lengths = rows.segment_length.astype(str)
    figure.add_scatter(
        x=lengths,
        y=rows.srp,
        error_y=interval(rows),
        customdata=rows.router_size,
        hovertemplate="%{y:.3f}, with %{customdata:.2f} k experts a segment",
        name="model",
        line={"color": BLUE, "width": 3},
        marker={"size": 9},
    )
    if nulls is not None:
        shown = nulls[nulls.metric == "srp"].sort_values("segment_length")
        for null, (name, colour, dash) in NULLS.items():
            line = {"color": colour, "dash": dash, "width": 2}
            figure.add_scatter(
                x=shown.segment_length.astype(int).astype(str),
                y=shown[null],
                name=name,
                line=line,
                mode="lines",
            )
    figure.add_scatter(x=lengths, y=[floor] * len(rows), name="floor 2k/(E+k)", line=DOTTED, mode="lines")
    figure.update_layout(hovermode="x unified").update_yaxes(rangemode="tozero", hoverformat=".3f")
    return figure.update_xaxes(type="category")


def parts_of_score(nulls: pd.DataFrame, metric: str, by: str, title: str) -> go.Figure:
    """The score split into what balance, domain, topic and the order of tokens add, over column `by`."""
    rows = nulls[nulls.metric == metric].sort_values(by)
    values = [f"{value:g}" for value in rows[by]]
    figure = new_figure(x=title, y=metric.upper())
    for name, (without, within, colour) in PARTS.items():
        part = rows[within] - (rows[without] if without else 0)
        figure.add_bar(x=values, y=part, name=name, marker={"color": colour}, hovertemplate="%{y:.3f}", width=0.6)
    return figure.update_layout(barmode="relative", hovermode="x unified").update_xaxes(type="category")
