"""The arms of a sweep beside each other: bars over seeds, trade-offs, correlations, curves over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from moe_toy.findings.student_t import mean_interval
from moe_toy.report.figures.style import BLUE, INK, ORANGE, SEQUENTIAL, SERIES, add_choices, new_figure

if TYPE_CHECKING:
    import pandas as pd

SRP, LOSS = "consistency/srp@16", "val/loss"
LOCAL, GLOBAL, MAX_VIOLATION = "load/cv@16", "load/cv", "load/max_violation"
SPECIALIZATION = "correlation/srp@16"
IMBALANCE = {"type": "log", "tickvals": [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50]}
"""Axis on which an arm without balance loss does not squeeze the others into a corner."""
KINDS = {"domain": "domain", "input": "input token", "predicted": "predicted token", "target": "target token"}


def srp_by_arm(results: pd.DataFrame, published: Mapping[str, float]) -> go.Figure:
    """Bars with 95 % intervals over seeds, the paper's value of the same arm as a diamond."""
    table = over_seeds(results, SRP).sort_values("mean")
    figure = new_figure(x="SRP over 16 tokens", y="", height=110 + 26 * len(table))
    figure.add_bar(
        x=table["mean"],
        y=table.arm,
        error_x=bounds(table),
        orientation="h",
        name="this sweep, 95 % over seeds",
        marker={"color": BLUE},
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )
    if shown := {arm: published[arm] for arm in table.arm if arm in published}:
        figure.add_scatter(
            x=list(shown.values()),
            y=list(shown),
            mode="markers",
            name="the paper at 1.43 B",
            marker={"color": ORANGE, "symbol": "diamond", "size": 10},
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        )
    return figure.update_yaxes(type="category")


def srp_and_imbalance(results: pd.DataFrame, key: str, title: str) -> go.Figure:
    """SRP over an imbalance, one dot per run."""
    figure = new_figure(x=title, y="SRP over 16 tokens")
    for style, (arm, runs) in zip(_looks(results), results.groupby("arm", sort=False), strict=True):
        figure.add_scatter(
            x=runs[key],
            y=runs[SRP],
            name=arm,
            mode="markers",
            marker={"color": style["color"], "symbol": style["symbol"], "size": 9},
            customdata=runs.seed,
            hovertemplate="%{fullData.name}, seed %{customdata}: %{x:.3f}, SRP %{y:.3f}<extra></extra>",
        )
    return figure.update_xaxes(IMBALANCE)


def loss_balance_and_srp(results: pd.DataFrame, key: str = MAX_VIOLATION) -> go.Figure:
    """Loss over global imbalance, SRP as colour; ringed are arms that no other beats in all three."""
    measured = results.dropna(subset=[LOSS, key, SRP])
    means = measured.groupby("arm", sort=False)[[LOSS, key, SRP]].mean().reset_index()
    best = [not any(_dominates(other, arm, key) for _, other in means.iterrows()) for _, arm in means.iterrows()]
    figure = new_figure(x="load above the mean of the busiest expert (MaxVio)", y="loss (nats per token)")
    figure.add_scatter(
        x=means[key],
        y=means[LOSS],
        text=means.arm,
        mode="markers+text",
        textposition="top center",
        marker={
            "color": means[SRP],
            "colorscale": SEQUENTIAL,
            "colorbar": {"title": {"text": "SRP"}, "thickness": 12, "outlinewidth": 0},
            "size": 13,
            "line": {"color": INK, "width": [2.5 if on_front else 0 for on_front in best]},
        },
        customdata=means[SRP],
        hovertemplate="%{text}: loss %{y:.3f}, MaxVio %{x:.2f}, SRP %{customdata:.3f}<extra></extra>",
        showlegend=False,
    )
    return figure.update_xaxes(IMBALANCE)


def _dominates(other: pd.Series, arm: pd.Series, key: str) -> bool:
    """No worse in loss, balance and SRP, and better in one."""
    pairs = [(other[LOSS], arm[LOSS]), (other[key], arm[key]), (arm[SRP], other[SRP])]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def srp_and_specialization(results: pd.DataFrame) -> go.Figure:
    """Pearson's r over experts of SRP with each kind of specialization, by arm, with intervals over seeds."""
    arms = results.arm.unique()
    figure = new_figure(x="r of an expert's SRP with its specialization", y="", height=120 + 34 * len(arms))
    for style, (kind, name) in zip(SERIES, KINDS.items(), strict=False):
        key = f"{SPECIALIZATION}/{kind}"
        if key in results:
            table = over_seeds(results, key)
            figure.add_scatter(
                x=table["mean"],
                y=table.arm,
                error_x=bounds(table),
                name=name,
                mode="markers",
                marker={"color": style["color"], "symbol": style["symbol"], "size": 9},
                hovertemplate=f"%{{y}}, {name}: %{{x:.2f}}<extra></extra>",
            )
    return figure.update_yaxes(type="category", autorange="reversed").update_xaxes(range=[-1, 1])


def curves(histories: Mapping[str, Sequence[pd.DataFrame]], metrics: Mapping[str, str], first: str) -> go.Figure:
    """Every arm over training, mean over its seeds; the reader chooses the metric. `metrics`: title by key.

    `histories` holds, for each arm, the metrics of its runs by optimiser step.
    """
    import pandas as pd  # half a second

    choices = {}
    for key, title in metrics.items():
        traces = []
        for style, (arm, runs) in zip(SERIES * len(histories), histories.items(), strict=False):
            points = pd.concat(
                [run[["step", key]] for run in runs if key in run] or [pd.DataFrame({"step": [], key: []})]
            )
            line = points.dropna().groupby("step", as_index=False)[key].mean()
            traces.append(
                go.Scatter(
                    x=line.step,
                    y=line[key],
                    name=arm,
                    mode="lines",
                    line={"color": style["color"], "dash": style["dash"], "width": 2},
                    hovertemplate="%{y:.3f}",
                )
            )
        choices[title] = traces
    figure = new_figure(x="optimiser step", y="", height=440)
    add_choices(figure, "Metric", choices, list(metrics).index(first))
    return figure.update_layout(hovermode="x unified")


def over_seeds(results: pd.DataFrame, key: str) -> pd.DataFrame:
    """`arm`, `mean`, `low`, `high`: means with 95 % intervals, in the order of the arms."""
    import pandas as pd  # half a second

    defined = results.dropna(subset=key).groupby("arm", sort=False)[key]
    rows = [(arm, *mean_interval(list(values))) for arm, values in defined]
    return pd.DataFrame(rows, columns=["arm", "mean", "low", "high"])


def bounds(table: pd.DataFrame) -> dict[str, object]:
    """Error bars of `over_seeds`; none for a single seed, whose interval is infinite."""
    widths = (table["high"] - table["mean"]).where(lambda width: width < float("inf"))
    return {"type": "data", "array": widths, "thickness": 1, "width": 3}


def _looks(results: pd.DataFrame) -> list[dict[str, str]]:
    arms = results.arm.nunique()
    return (SERIES * arms)[:arms]
