"""What decoding with experts in slow memory took, measured and predicted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from moe_toy.findings.hit_rates import POLICIES
from moe_toy.report.figures.caches import RATIO
from moe_toy.report.figures.style import BLUE, GREEN, ORANGE, POLICY, VERMILION, add_choices, dotted_level, new_figure

if TYPE_CHECKING:
    import pandas as pd

RESIDENT = "resident"
LOOKS = POLICY | {"random": {"color": ORANGE, "dash": "longdash"}}
PARTS = {"compute_ms": ("computing", BLUE), "stall_ms": ("waiting for experts", VERMILION)}
PARTS |= {"management_ms": ("deciding what to load", GREEN)}
PERCENTILES = {"p50_ms": "half of the tokens", "p95_ms": "95 % of the tokens", "p99_ms": "99 % of the tokens"}


def name_of(policy: str) -> str:
    return POLICIES.get(policy, policy.capitalize())


def pooled(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of all domains together, without those of the resident model."""
    return table[table.domain.isna() & (table.policy != RESIDENT)].sort_values("cache_ratio")


def _mark_resident(figure: go.Figure, table: pd.DataFrame, key: str) -> None:
    """Where the model was there to be computed with."""
    for value in table[table.domain.isna() & (table.policy == RESIDENT)][key]:
        dotted_level(figure, float(value), "all experts at hand")


def time_by_ratio(table: pd.DataFrame) -> go.Figure:
    figure = new_figure(x=RATIO, y="ms per token", height=420)
    _beside(figure, table, "ms_per_token", "predicted_ms", "predicted")
    _mark_resident(figure, table, "ms_per_token")
    return figure.update_yaxes(rangemode="tozero")


def speed_by_ratio(table: pd.DataFrame) -> go.Figure:
    figure = new_figure(x=RATIO, y="tokens per second", height=420)
    table = table.assign(predicted=1000 / table.predicted_ms)
    _beside(figure, table, "tokens_per_second", "predicted", "predicted")
    _mark_resident(figure, table, "tokens_per_second")
    return figure.update_yaxes(rangemode="tozero")


def hit_rate_by_ratio(table: pd.DataFrame) -> go.Figure:
    figure = new_figure(x=RATIO, y="hit rate")
    _beside(figure, table, "hit_rate", "simulated_hit_rate", "simulated")
    return figure.update_yaxes(range=[0, 1.02])


def bytes_by_ratio(table: pd.DataFrame) -> go.Figure:
    figure = new_figure(x=RATIO, y="MB per token")
    _beside(figure, table.assign(megabytes=table.bytes_per_token / 1e6), "megabytes")
    return figure.update_yaxes(rangemode="tozero")


def parts_by_ratio(table: pd.DataFrame) -> go.Figure:
    """What a token's time is spent on, stacked."""

    def bars(rows: pd.DataFrame) -> list[go.Bar]:
        return [
            go.Bar(x=_ratios(rows), y=rows[key], name=name, marker={"color": colour}, hovertemplate="%{y:.2f} ms")
            for key, (name, colour) in PARTS.items()
        ]

    figure = new_figure(x=RATIO, y="ms per token")
    return _by_policy(figure, table, bars).update_layout(barmode="stack").update_xaxes(type="category")


def percentiles_by_ratio(table: pd.DataFrame) -> go.Figure:
    def lines(rows: pd.DataFrame) -> list[go.Scatter]:
        return [
            go.Scatter(x=rows.cache_ratio, y=rows[key], name=name, mode="lines+markers", hovertemplate="%{y:.2f} ms")
            for key, name in PERCENTILES.items()
        ]

    return _by_policy(new_figure(x=RATIO, y="ms"), table, lines).update_yaxes(rangemode="tozero")


def time_by_domain(table: pd.DataFrame, cache_ratio: float) -> go.Figure:
    """One dot per policy and domain."""
    rows = table[table.domain.notna() & (table.cache_ratio == cache_ratio) & (table.policy != RESIDENT)]
    order = rows.groupby("domain").ms_per_token.mean().sort_values().index.astype(str)
    figure = new_figure(x=f"ms per token at cache ratio {cache_ratio:.2g}", y="", height=110 + 24 * len(order))
    for policy, shown in rows.groupby("policy", sort=False):
        figure.add_scatter(
            x=shown.ms_per_token,
            y=shown.domain.astype(str),
            name=name_of(policy),
            mode="markers",
            marker={"color": LOOKS[policy]["color"], "size": 9},
            hovertemplate="%{y}: %{x:.2f} ms",
        )
    return figure.update_yaxes(type="category", categoryorder="array", categoryarray=order.tolist())


def _beside(figure: go.Figure, table: pd.DataFrame, measured: str, other: str = "", what: str = "") -> None:
    """A line with dots for each policy, and crosses for what it should be."""
    for policy, rows in pooled(table).groupby("policy", sort=False):
        look, name = LOOKS[policy], name_of(policy)
        figure.add_scatter(
            x=rows.cache_ratio,
            y=rows[measured],
            name=name,
            mode="lines+markers",
            line={"width": 2} | look,
            hovertemplate="%{y:.3g}",
        )
        if other:
            figure.add_scatter(
                x=rows.cache_ratio,
                y=rows[other],
                name=f"{name}, {what}",
                mode="markers",
                marker={"color": look["color"], "symbol": "x-thin-open", "size": 11, "line": {"width": 2}},
                hovertemplate="%{y:.3g}",
            )


def _by_policy(figure: go.Figure, table: pd.DataFrame, draw: Callable[[pd.DataFrame], list]) -> go.Figure:
    choices = {name_of(policy): draw(rows) for policy, rows in pooled(table).groupby("policy", sort=False)}
    add_choices(figure, "Policy", choices, 0)
    return figure


def _ratios(rows: pd.DataFrame) -> list[str]:
    return [f"{ratio:.3g}×" for ratio in rows.cache_ratio]
