"""Experts one by one: which domains use them, and how consistency goes along with specialization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
import torch

from moe_toy.metrics.correlation import pearson
from moe_toy.report.figures.style import DIVERGING, DOTTED, INK, SEQUENTIAL, add_choices, new_figure

if TYPE_CHECKING:
    import pandas as pd

CUT = 3
"""Heat maps end at a factor of 2^3 from even."""
KINDS = {"domain": "domain", "input": "input token", "predicted": "predicted token", "target": "next token"}


def activation_by_domain(load: pd.DataFrame, layer_ids: Sequence[int]) -> go.Figure:
    """How much more (vermilion) or less (blue) than evenly each domain uses each expert, one layer at a time.

    Experts stand in the order of the domain that uses them most, so that specialists line up along the diagonal.
    """
    rows = load[load.domain.notna()]
    figure = new_figure(x="experts, by the domain that uses them most", y="", height=120 + 24 * rows.domain.nunique())
    choices = {}
    for row, layer in rows.groupby("layer"):
        grid = layer.pivot(index="domain", columns="expert", values="activation_rate")
        rates = np.nan_to_num(grid.to_numpy(float))  # a domain without text uses nothing
        home = rates.argmax(0) * 2 - rates.max(0)
        order = np.argsort(home, kind="stable")
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.log2(rates / rates.mean(1, keepdims=True))[:, order]
        choices[f"{layer_ids[row]}"] = [
            go.Heatmap(
                z=np.clip(relative, -CUT, CUT),
                y=grid.index.astype(str),
                customdata=np.broadcast_to(grid.columns.to_numpy(int)[order], rates.shape),
                hovertemplate="expert %{customdata}, %{y}: even use × 2^%{z:.1f}<extra></extra>",
                coloraxis="coloraxis",
            )
        ]
    add_choices(figure, "layer", choices, first=len(choices) - 1)
    figure.update_layout(
        coloraxis={
            "colorscale": DIVERGING,
            "cmin": -CUT,
            "cmax": CUT,
            "colorbar": {
                "tickvals": [-3, -1, 0, 1, 3],
                "ticktext": ["⅛", "½", "even", "2×", "8×"],
                "thickness": 12,
                "outlinewidth": 0,
            },
        }
    )
    return figure.update_xaxes(showticklabels=False, showgrid=False).update_yaxes(
        type="category", autorange="reversed", showgrid=False
    )


def srp_and_specialization(
    srp: pd.DataFrame, specialization: pd.DataFrame, layer_ids: Sequence[int], segment_length: int
) -> go.Figure:
    """Every expert by its specialization and its consistency; Pearson's r stands with the choice of the kind."""
    figure = new_figure(x="specialization", y=f"SRP of the expert over {segment_length} tokens", height=400)
    choices = {}
    for kind, name in KINDS.items():
        values = specialization[specialization.kind == kind]
        experts = expert_rows(srp, segment_length).merge(values, on=["layer", "expert"]).dropna(subset=["value", "srp"])
        if len(experts):
            r = pearson(*(torch.tensor(experts[column].to_numpy(float)) for column in ("value", "srp"))).item()
            choices[f"{name} (r = {r:+.2f})"] = [_dots(experts.value, experts, layer_ids)]
    add_choices(figure, "specialization by", choices, first=0)
    return _coloured_by_layer(figure, layer_ids)


def srp_and_activation(srp: pd.DataFrame, layer_ids: Sequence[int], segment_length: int) -> go.Figure:
    """Every expert by how often it is active and by its consistency, which cannot lie below the curve 2r / (1 + r)."""
    figure = new_figure(
        x="activation rate of the expert", y=f"SRP of the expert over {segment_length} tokens", height=400
    )
    experts = expert_rows(srp, segment_length)
    even_rate = float(experts.activation_rate.mean())
    experts = experts[experts.activation_rate > 0]
    rates = np.geomspace(max(experts.activation_rate.min(), 1e-4), 1, 100)
    figure.add_scatter(x=rates, y=2 * rates / (1 + rates), line=DOTTED, hoverinfo="skip", name="floor 2r/(1+r)")
    even = {"color": INK, "dash": "dash", "width": 1}
    figure.add_scatter(x=[even_rate] * 2, y=[0, 1], line=even, mode="lines", hoverinfo="skip", name="even use, k/E")
    figure.add_trace(_dots(experts.activation_rate, experts, layer_ids))
    ticks = [0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1]
    return _coloured_by_layer(figure, layer_ids).update_xaxes(type="log", tickvals=ticks)


def expert_rows(srp: pd.DataFrame, segment_length: int) -> pd.DataFrame:
    return srp[(srp.level == "expert") & srp.domain.isna() & (srp.segment_length == segment_length)]


def _dots(x: pd.Series, experts: pd.DataFrame, layer_ids: Sequence[int]) -> go.Scatter:
    layers = np.array(layer_ids)[experts.layer.to_numpy(int)]
    return go.Scatter(
        x=x,
        y=experts.srp,
        mode="markers",
        marker={"size": 7, "line": {"width": 0.5, "color": INK}, "color": layers, "coloraxis": "coloraxis"},
        customdata=np.stack([layers, experts.expert.to_numpy(int)], -1),
        hovertemplate="layer %{customdata[0]}, expert %{customdata[1]}: SRP %{y:.3f} at %{x:.3f}<extra></extra>",
        showlegend=False,
    )


def _coloured_by_layer(figure: go.Figure, layer_ids: Sequence[int]) -> go.Figure:
    step = max((max(layer_ids) - min(layer_ids)) // 8, 1)
    bar = {"title": {"text": "layer"}, "thickness": 12, "outlinewidth": 0, "tick0": min(layer_ids), "dtick": step}
    return figure.update_layout(
        coloraxis={"colorscale": SEQUENTIAL, "cmin": min(layer_ids), "cmax": max(layer_ids), "colorbar": bar}
    )
