"""A sweep of the paper's models as a picture: `python docs/draw_sweep.py outputs/sweeps/paper PICTURE.png`."""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from moe_toy.checks.mistakes import report_user_errors
from moe_toy.errors import UserError
from moe_toy.findings import paper
from moe_toy.findings.student_t import mean_interval
from moe_toy.report.sweep_files import read_sweep

SRP = "consistency/srp@16"
IMBALANCE = {
    "load/cv@16": "imbalance within 16 tokens (CV)",
    "load/cv": "imbalance over everything (CV)",
}
TICKS = {"load/cv@16": [0.8, 1, 1.5, 2], "load/cv": [0.2, 0.5, 1, 2]}
APART = ("top16", "top2", "overlb", "nolb")
"""Labelled where they lie; the others are told by the colours of their bars."""


def draw(results: pd.DataFrame) -> plt.Figure:
    figure, (bars, *scatters) = plt.subplots(1, 3, figsize=(13, 4.4), layout="constrained")
    results = results.dropna(subset=[SRP])
    order = results.groupby("arm")[SRP].mean().sort_values().index
    colours = dict(zip(order, plt.get_cmap("viridis").resampled(len(order)).colors, strict=True))
    draw_bars(bars, results, colours)
    for axis, (key, title) in zip(scatters, IMBALANCE.items(), strict=True):
        for arm, runs in results.groupby("arm"):
            axis.scatter(runs[key], runs[SRP], 55, color=colours[arm], edgecolors="white")
            if arm in APART:
                mean = runs[key].mean(), runs[SRP].mean()
                axis.annotate(arm, mean, (0, -16), textcoords="offset points", ha="center", fontsize=8)
        axis.set(xlabel=title, ylabel="local routing consistency (SRP@16)", xscale="log")
        axis.set_xticks(TICKS[key], [f"{tick:g}" for tick in TICKS[key]])
        axis.minorticks_off()
        axis.margins(y=0.1)
        axis.grid(alpha=0.25)
    return figure


def draw_bars(axis: plt.Axes, results: pd.DataFrame, colours: dict[str, object]) -> None:
    """Means with 95 % intervals over seeds; the paper's values as diamonds."""
    numbers = paper.numbers()
    published = numbers[numbers.study == "toy"].set_index("model").srp_16.rename(paper.ARM_OF_MODEL)
    for arm, colour in colours.items():
        mean, low, high = mean_interval(results[SRP][results.arm == arm].to_list())
        axis.barh(arm, mean, color=colour, xerr=[[mean - low], [high - mean]], error_kw={"capsize": 3})
    shown = [arm for arm in colours if arm in published]
    axis.scatter(published[shown], shown, 45, "white", marker="D", edgecolors="black", zorder=3)
    axis.set_xlabel("SRP@16, 95 % interval over seeds\n(diamonds: the paper, 1.43B)")
    axis.spines[["top", "right"]].set_visible(False)


def main(arguments: list[str]) -> None:
    with report_user_errors("picture"):
        if len(arguments) != 2:
            raise UserError("give the directory of a sweep and a picture to write")
        sweep, picture = map(Path, arguments)
        draw(read_sweep(sweep)).savefig(picture, dpi=110)


if __name__ == "__main__":
    main(sys.argv[1:])
