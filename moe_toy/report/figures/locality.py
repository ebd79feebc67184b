"""Schemes of locality beside each other: what a cache misses and what that costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import plotly.graph_objects as go

from moe_toy.report.figures.style import SERIES, new_figure

if TYPE_CHECKING:
    import pandas as pd

BITS, HIT_RATE = "val/bits_per_byte", "cache/lru@layer/ratio_2"


def bits_and_misses(results: pd.DataFrame) -> go.Figure:
    """Bits per byte over misses of an LRU cache: an arm is a dot, and a line for each scheme leads along the arms that
    no other arm of the scheme beats in both. What follows a slash in `locality` is a strength of the scheme before it.
    """
    results = results.dropna(subset=[BITS, HIT_RATE]).fillna({"locality": "not varied"})
    means = results.groupby(["locality", "arm"], sort=False)[[BITS, HIT_RATE]].mean().reset_index()
    means = means.assign(misses=1 - means[HIT_RATE], scheme=means.locality.str.partition("/")[0])
    figure = new_figure(x="share of requests that an LRU cache of twice the active experts misses", y="bits per byte")
    for style, (scheme, arms) in zip(SERIES * len(means), means.groupby("scheme", sort=False), strict=False):
        front = _front(arms)
        line = {"color": style["color"], "dash": style["dash"], "width": 2}
        marker = {"color": style["color"], "symbol": style["symbol"], "size": 9}
        figure.add_scatter(
            x=front.misses,
            y=front[BITS],
            mode="lines",
            line=line,
            legendgroup=scheme,
            showlegend=False,
            hoverinfo="skip",
        )
        figure.add_scatter(
            x=arms.misses,
            y=arms[BITS],
            text=arms.arm,
            name=scheme,
            mode="markers",
            marker=marker,
            legendgroup=scheme,
            hovertemplate="%{text}: misses %{x:.3f}, %{y:.3f} bits per byte<extra></extra>",
        )
    return figure


def _front(arms: pd.DataFrame) -> pd.DataFrame:
    """From few misses to many, those with fewer bits per byte than all with fewer misses."""
    ordered = arms.sort_values(["misses", BITS])
    return ordered[ordered[BITS] < ordered[BITS].cummin().shift(fill_value=float("inf"))]
