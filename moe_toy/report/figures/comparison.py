"""Several models side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from moe_toy.findings.hit_rates import POLICIES, model_curve
from moe_toy.report.figures.caches import RATIO
from moe_toy.report.figures.style import (
    DIVERGING,
    INK,
    POLICY,
    SERIES,
    add_choices,
    new_figure,
)
from moe_toy.results import Results

if TYPE_CHECKING:
    import pandas as pd


def srp_and_loss(models: pd.DataFrame, toys: pd.DataFrame, segment_length: int) -> go.Figure:
    """One marker per model. The paper's toy models wait in the legend: their losses are of another tokenizer."""
    figure = new_figure(x="loss (nats per token)", y=f"SRP over {segment_length} tokens", height=400)
    figure.add_scatter(
        x=toys.loss,
        y=toys.srp_16,
        text=toys.model,
        name="the paper's toy models",
        mode="markers",
        marker={"color": INK, "symbol": "circle-open", "size": 8},
        visible="legendonly",
    )
    for row, look in zip(models.itertuples(), _looks(len(models)), strict=True):
        marker = {"color": look["color"], "symbol": look["symbol"], "size": 13}
        figure.add_scatter(x=[row.loss], y=[row.srp], text=[row.model], name=row.model, mode="markers", marker=marker)
    return figure.update_traces(hovertemplate="%{text}: loss %{x:.3f}, SRP %{y:.3f}<extra></extra>")


def srp_by_length(models: Mapping[str, Results]) -> go.Figure:
    figure = new_figure(x="segment length (tokens)", y="SRP", height=400)
    for (name, results), look in zip(models.items(), _looks(len(models)), strict=True):
        rows = results.tables["srp"]
        rows = rows[(rows.level == "model") & rows.domain.isna()].sort_values("segment_length")
        figure.add_scatter(x=rows.segment_length.astype(str), y=rows.srp, name=name, **_line(look, "lines+markers"))
    figure.update_layout(hovermode="x unified").update_yaxes(hoverformat=".3f")
    return figure.update_xaxes(type="category")


def hit_rates(models: Mapping[str, Results], segment_length: int) -> go.Figure:
    """One policy at a time, every model at every capacity."""
    figure = new_figure(x=RATIO, y="hit rate", height=400)
    choices = {}
    for policy, title in POLICIES.items():
        length = segment_length if policy == "sch" else None
        choices[title] = []
        for (name, results), look in zip(models.items(), _looks(len(models)), strict=True):
            curve = model_curve(results.tables["cache"], policy, length)
            choices[title].append(go.Scatter(x=curve.cache_ratio, y=curve.hit_rate, name=name, **_line(look, "lines")))
    add_choices(figure, "policy", choices, first=list(POLICIES).index("lru"))
    figure.update_layout(hovermode="x unified").update_yaxes(range=[0, 1.02], hoverformat=".3f")
    return figure.update_xaxes(range=[0, 8], hoverformat=".2f")


def srp_and_sch(pairs: pd.DataFrame, correlations: pd.DataFrame, segment_length: int) -> go.Figure:
    """One dot per model, layer and domain; r stands with the choice of the cache ratio."""
    figure = new_figure(x=f"SRP over {segment_length} tokens", y="SCH", height=420)
    names = list(dict.fromkeys(pairs.model))
    choices = {}
    rows = correlations[(correlations.y == "sch") & (correlations.segment_length == segment_length)]
    for found in rows.itertuples():
        shown = pairs[(pairs.segment_length == segment_length) & (pairs.cache_ratio == found.cache_ratio)]
        title = f"{found.cache_ratio:g} (r = {found.r:.3f}, {found.rows} rows)"
        choices[title] = []
        for name, look in zip(names, _looks(len(names)), strict=True):
            dots = shown[shown.model == name]
            marker = {"color": look["color"], "symbol": look["symbol"], "size": 6, "opacity": 0.7}
            text = [f"{name}, layer {layer} {domain}" for layer, domain in zip(dots.layer, dots.domain, strict=True)]
            choices[title].append(
                go.Scatter(x=dots.srp, y=dots.sch, name=name, mode="markers", marker=marker, text=text)
            )
    ratios = rows.cache_ratio.tolist()
    add_choices(figure, "cache ratio", choices, first=ratios.index(1.5) if 1.5 in ratios else 0)
    return figure.update_traces(hovertemplate="%{text}: SRP %{x:.3f}, SCH %{y:.3f}<extra></extra>")


def sch_and_caches(correlations: pd.DataFrame) -> go.Figure:
    """Pearson's r of SCH with each real cache over the segment length of SCH."""
    figure = new_figure(x="segment length of SCH (tokens)", y="r with SCH", height=420)
    rows = correlations[correlations.x == "sch"]
    for policy, shown in rows.groupby("y", sort=False):
        figure.add_scatter(
            x=shown.segment_length.astype(str),
            y=shown.r,
            name=POLICIES[policy],
            mode="lines+markers",
            line={"width": 2.5} | POLICY[policy],
            marker={"size": 8},
            hovertemplate="%{y:.3f}",
        )
    return figure.update_xaxes(type="category").update_layout(hovermode="x unified")


def srp_by_domain(models: Mapping[str, Results], segment_length: int) -> go.Figure:
    """How far each domain lies above (vermilion) or below (blue) the model's own SRP, in percent."""
    import pandas as pd  # half a second

    rows = {}
    for name, results in models.items():
        scores = results.tables["srp"]
        scores = scores[(scores.level == "model") & (scores.segment_length == segment_length)]
        by_domain = scores[scores.domain.notna()].set_index("domain").srp
        rows[name] = 100 * (by_domain / float(scores[scores.domain.isna()].srp.iloc[0]) - 1)
    grid = pd.DataFrame(rows).T
    figure = new_figure(x="", y="", height=150 + 30 * len(grid))
    figure.add_heatmap(
        z=grid.to_numpy(float),
        x=grid.columns.astype(str),
        y=list(grid.index),
        colorscale=DIVERGING,
        zmid=0,
        texttemplate="%{z:+.0f}",
        colorbar={"ticksuffix": " %", "thickness": 12, "outlinewidth": 0},
        hovertemplate="%{y}, %{x}: %{z:+.1f} %<extra></extra>",
        xgap=1,
        ygap=1,
    )
    figure.update_xaxes(type="category", showgrid=False)
    return figure.update_yaxes(type="category", autorange="reversed", showgrid=False)


def _looks(count: int) -> list[dict[str, str]]:
    return [SERIES[number % len(SERIES)] for number in range(count)]


def _line(look: dict[str, str], mode: str) -> dict[str, object]:
    line = {"color": look["color"], "dash": look["dash"], "width": 2}
    return {"mode": mode, "line": line, "marker": {"symbol": look["symbol"], "size": 8}}
