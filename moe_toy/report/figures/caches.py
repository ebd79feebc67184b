"""Hit rates of expert caches over their size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from moe_toy.findings.hit_rates import POLICIES, at_ratio, model_curve, shared
from moe_toy.report.figures.style import DOTTED, INK, POLICY, new_figure

if TYPE_CHECKING:
    import pandas as pd

RATIO = "cache ratio (experts held / active experts)"
ORDERS = {"layer": "layer by layer", "token": "token by token"}
WIDEST = 10.0
"""Ratio up to which curves are shown at first."""


def hit_rate_curves(cache: pd.DataFrame, segment_length: int, marks: Mapping[str, float]) -> go.Figure:
    """Every policy at every capacity; other look-aheads of SCH wait in the legend. `marks` names cache ratios."""
    figure = new_figure(x=RATIO, y="hit rate", height=420)
    lengths = sorted(int(m) for m in cache.segment_length.dropna().unique())
    for policy, name in POLICIES.items():
        for length in lengths if policy == "sch" else [None]:
            curve = model_curve(cache, policy, length)
            seen = length in (None, segment_length)
            figure.add_scatter(
                x=curve.cache_ratio,
                y=curve.hit_rate,
                customdata=curve.capacity.to_numpy(int),
                hovertemplate="%{y:.3f} with %{customdata} experts",
                name=name if length is None else f"{name}, {length} tokens",
                line={"width": 2.5 if seen else 1.5} | POLICY[policy],
                mode="lines",
                visible=True if seen else "legendonly",
            )
    full = float(shared(cache).cache_ratio.max())
    figure.add_scatter(
        x=[0, full],
        y=[0, 1],
        name="random experts",
        line=DOTTED,
        mode="lines",
        hoverinfo="skip",
    )
    for (text, ratio), dash in zip(marks.items(), ["solid", "dash"], strict=False):
        line = {"color": INK, "dash": dash, "width": 1.5}
        figure.add_scatter(x=[ratio] * 2, y=[0, 1], name=text, line=line, mode="lines", hoverinfo="skip")
    return _over_ratio(figure, cache).update_yaxes(range=[0, 1.02])


def hit_rate_by_order(cache: pd.DataFrame, segment_length: int) -> go.Figure:
    """Each policy asked for all experts of a token at once, and for one layer after another."""
    figure = new_figure(x=RATIO, y="hit rate", height=420)
    for policy, name in POLICIES.items():
        for order, width in {"layer": 2.5, "token": 1}.items():
            curve = model_curve(cache, policy, segment_length if policy == "sch" else None, order)
            figure.add_scatter(
                x=curve.cache_ratio,
                y=curve.hit_rate,
                hovertemplate="%{y:.3f}",
                name=f"{name}, {ORDERS[order]}",
                line={"width": width} | POLICY[policy],
                mode="lines",
                visible=True if policy in ("sch", "lru") else "legendonly",
            )
    return _over_ratio(figure, cache).update_yaxes(range=[0, 1.02])


def miss_ratio_curves(cache: pd.DataFrame, segment_length: int) -> go.Figure:
    """What has to be loaded, per request, on a logarithmic axis, where a halving looks the same everywhere."""
    figure = new_figure(x=RATIO, y="miss ratio", height=420)
    for policy, name in POLICIES.items():
        curve = model_curve(cache, policy, segment_length if policy == "sch" else None)
        curve = curve[curve.hit_rate < 1]
        figure.add_scatter(
            x=curve.cache_ratio,
            y=1 - curve.hit_rate,
            hovertemplate="%{y:.3f}",
            name=name,
            line={"width": 2.5} | POLICY[policy],
            mode="lines",
        )
    ticks = [1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002]
    return _over_ratio(figure, cache).update_yaxes(type="log", tickvals=ticks, range=np.log10([0.002, 1]))


def hit_rate_by_domain(cache: pd.DataFrame, segment_length: int, cache_ratio: float) -> go.Figure:
    """One dot per policy and domain, for a shared cache of about `cache_ratio`."""
    rows = shared(cache)
    rows = rows[rows.domain.notna()]
    rows = rows[rows.segment_length.isna() | (rows.segment_length == segment_length)]
    order = _at(rows[rows.policy == "lru"], cache_ratio).sort_values("hit_rate").domain.astype(str)
    figure = new_figure(x=f"hit rate at cache ratio {cache_ratio:.2g}", y="", height=110 + 24 * len(order))
    for (policy, name), symbol in zip(POLICIES.items(), ["circle", "diamond", "square", "cross"], strict=True):
        shown = _at(rows[rows.policy == policy], cache_ratio)
        figure.add_scatter(
            x=shown.hit_rate,
            y=shown.domain.astype(str),
            name=name,
            mode="markers",
            marker={"color": POLICY[policy]["color"], "symbol": symbol, "size": 9},
            hovertemplate="%{y}: %{x:.3f}",
        )
    return figure.update_yaxes(type="category", categoryorder="array", categoryarray=order.tolist())


def _at(rows: pd.DataFrame, cache_ratio: float) -> pd.DataFrame:
    return rows[rows.capacity == at_ratio(rows, cache_ratio).capacity]


def tokens_per_second(throughput: pd.DataFrame, compute_ms: float) -> go.Figure:
    """Speed on the device given, over cache size, below that of a device which holds everything."""
    figure = new_figure(x=RATIO, y="tokens per second")
    for policy, curve in throughput.groupby("policy", sort=False):
        figure.add_scatter(
            x=curve.cache_ratio,
            y=curve.tokens_per_second,
            customdata=curve.cache_bytes / 1e9,
            hovertemplate="%{y:.1f} tokens/s, cache of %{customdata:.2f} GB",
            name=POLICIES[policy],
            line={"width": 2.5} | POLICY[policy],
            mode="lines",
        )
    ratios = throughput.cache_ratio
    figure.add_scatter(
        x=[ratios.min(), ratios.max()],
        y=[1000 / compute_ms] * 2,
        name="all experts resident",
        line=DOTTED,
        hovertemplate="%{y:.1f} tokens/s",
        mode="lines",
    )
    return _over_ratio(figure, throughput).update_yaxes(rangemode="tozero")


def _over_ratio(figure: go.Figure, table: pd.DataFrame) -> go.Figure:
    """Where caches are worth a look; a double click shows the rest."""
    shown = min(float(table.cache_ratio.max()), WIDEST)
    return figure.update_xaxes(range=[0, shown], hoverformat=".2f").update_layout(hovermode="x unified")
