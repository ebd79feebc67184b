"""Local routing consistency (SRP): by segment length, layer and domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from moe_toy.report.figures.style import (
    BLUE,
    GREEN,
    ORANGE,
    SEQUENTIAL,
    VERMILION,
    dotted_level,
    dotted_mark,
    new_figure,
)

if TYPE_CHECKING:
    import pandas as pd

LENGTH_STYLE = [(ORANGE, "circle"), (BLUE, "square"), (VERMILION, "diamond"), (GREEN, "triangle-up")]


def srp_by_layer(srp: pd.DataFrame, layer_ids: Sequence[int], floor: float) -> go.Figure:
    """One line per segment length."""
    figure = new_figure(x="transformer layer", y="SRP")
    rows = srp[(srp.level == "layer") & srp.domain.isna()]
    for number, (length, group) in enumerate(rows.groupby("segment_length")):
        colour, symbol = LENGTH_STYLE[number % len(LENGTH_STYLE)]
        figure.add_scatter(
            x=[str(layer_ids[row]) for row in group.layer],
            y=group.srp,
            error_y=interval(group),
            name=f"{length} tokens",
            line={"color": colour, "width": 2},
            marker={"symbol": symbol, "size": 7},
            mode="lines+markers",
        )
    dotted_level(figure, floor, "floor 2k/(E+k)")
    return figure.update_xaxes(type="category")


def srp_by_position(positions: pd.DataFrame) -> go.Figure:
    """SRP of the model in the segments around each position of a sequence."""
    length = positions.segment_length.iloc[0]
    figure = new_figure(x="position in the sequence (middle of the segment)", y=f"SRP over {length} tokens", height=300)
    return figure.add_scatter(x=positions.position, y=positions.srp, mode="lines", showlegend=False)


def srp_by_domain(srp: pd.DataFrame, segment_length: int) -> go.Figure:
    """The model on each domain, most consistent at the top, beside all domains together."""
    rows = srp[(srp.level == "model") & (srp.segment_length == segment_length)]
    domains = rows[rows.domain.notna()].sort_values("srp")
    pooled = float(rows[rows.domain.isna()].srp.iloc[0])
    figure = new_figure(x=f"SRP over {segment_length} tokens", y="", height=90 + 24 * len(domains))
    figure.add_scatter(
        x=domains.srp,
        y=domains.domain.astype(str),
        error_x=interval(domains),
        customdata=100 * (domains.srp / pooled - 1),
        hovertemplate="%{y}: %{x:.3f} (%{customdata:+.1f} % of the model)<extra></extra>",
        mode="markers",
        marker={"color": BLUE, "size": 10},
        showlegend=False,
    )
    dotted_mark(figure, pooled, "all domains")
    return figure.update_yaxes(type="category")


def srp_by_layer_and_domain(srp: pd.DataFrame, layer_ids: Sequence[int], segment_length: int) -> go.Figure:
    """A heat map: where in the model, and on which text, routing holds still."""
    rows = srp[(srp.level == "layer") & (srp.segment_length == segment_length) & srp.domain.notna()]
    grid = rows.pivot(index="domain", columns="layer", values="srp")
    figure = new_figure(x="transformer layer", y="", height=110 + 24 * len(grid))
    figure.add_heatmap(
        z=grid.to_numpy(),
        x=[str(layer_ids[row]) for row in grid.columns],
        y=grid.index.astype(str),
        colorscale=SEQUENTIAL,
        colorbar={"title": {"text": "SRP"}, "thickness": 12, "outlinewidth": 0},
        hovertemplate="layer %{x}, %{y}: %{z:.3f}<extra></extra>",
        xgap=1,
        ygap=1,
    )
    return figure.update_xaxes(type="category").update_yaxes(type="category", autorange="reversed")


def srp_and_difficulty(srp: pd.DataFrame, loss: pd.DataFrame, segment_length: int) -> go.Figure:
    """Whether text that the model predicts well is routed more consistently."""
    rows = srp[(srp.level == "model") & (srp.segment_length == segment_length) & srp.domain.notna()]
    rows = rows.merge(loss, on="domain")
    bits = "bits_per_byte" in rows and rows.bits_per_byte.notna().all()
    figure = new_figure(
        x="bits per byte" if bits else "loss (nats per token)", y=f"SRP over {segment_length} tokens", height=400
    )
    figure.add_scatter(
        x=rows.bits_per_byte if bits else rows.loss,
        y=rows.srp,
        text=rows.domain.astype(str),
        textposition="top center",
        textfont={"size": 11},
        mode="markers+text",
        marker={"color": BLUE, "size": 9},
        hovertemplate="%{text}: SRP %{y:.3f} at %{x:.3f}<extra></extra>",
    )
    return figure


def interval(rows: pd.DataFrame) -> dict[str, object] | None:
    """Error bars from 95 % bounds, which need not be symmetric; None where there are none."""
    if rows.ci_low.isna().all():
        return None
    return {
        "type": "data",
        "symmetric": False,
        "array": (rows.ci_high - rows.srp).clip(lower=0),
        "arrayminus": (rows.srp - rows.ci_low).clip(lower=0),
        "thickness": 1,
        "width": 2,
    }
