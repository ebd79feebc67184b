"""The curves of one run as a picture: `python -m moe_toy.pictures.curves RUN_DIRECTORY`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_toy.checks.mistakes import report_user_errors
from moe_toy.errors import UserError
from moe_toy.files.atomic import save_atomically
from moe_toy.files.reading import reading
from moe_toy.runs.curve_keys import CONSISTENCY, LOAD, SPECIALIZATION, present_name
from moe_toy.runs.run_directory import METRICS, RunDirectory

STEP = "step"
PANELS: dict[str, dict[str, str]] = {
    "Loss (nats per token)": {"train/loss": "training", "val/loss": "validation"},
    "Local routing consistency (SRP)": {f"{CONSISTENCY}/srp@{m}": f"{m} tokens" for m in (4, 16, 64, 256)},
    "Load imbalance (CV of load)": {
        f"{LOAD}/cv": "over everything",
        f"{LOAD}/cv@sequence": "within a sequence",
        f"{LOAD}/cv@16": "within 16 tokens",
    },
    "Specialization of experts": {
        f"{SPECIALIZATION}/domain": "domain",
        f"{SPECIALIZATION}/input": "input token",
        f"{SPECIALIZATION}/target": "target token",
    },
}
FAMILIES = {
    "SRP over 16 tokens, by domain": f"{CONSISTENCY}/srp@16/domain/",
    "Domain specialization, by layer": f"{SPECIALIZATION}/domain/",
}
"""Panels with a line for every key that begins so."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe and Ito: safe for colour-blind readers
LINES_BY_COLUMN, MOST_NAMED, LONGEST_NAME = 6, 24, 20
"""Of a legend. Beyond so many lines there is none, which would leave no room for them."""


def draw_curves(metrics: pd.DataFrame) -> Figure:
    """Six panels over optimiser steps. `metrics` has a `step` column and one column per logged key."""
    figure = Figure(figsize=(13, 6.8), layout="constrained")
    axes = figure.subplots(2, 3).flat
    for axis, (title, series) in zip(axes, PANELS.items(), strict=False):
        draw_panel(axis, title, metrics, dict(zip(series, COLOURS, strict=False)), series)
    for axis, (title, start) in zip(axes[len(PANELS) :], FAMILIES.items(), strict=True):
        keys = [key for key in metrics if key.startswith(start)]
        shades = colormaps["viridis"].resampled(max(len(keys), 2))
        colours = {key: shades(number) for number, key in enumerate(keys)}
        draw_panel(axis, title, metrics, colours, {key: key.removeprefix(start).replace("_", " ") for key in keys})
    return figure


def draw_panel(
    axis: Axes, title: str, metrics: pd.DataFrame, colours: Mapping[str, Any], labels: Mapping[str, str]
) -> None:
    """A line for each key that was logged."""
    for key, colour in colours.items():
        if key in metrics:
            points = metrics[[STEP, key]].dropna()
            marker = "" if key.startswith("train/") else "o"
            axis.plot(
                points[STEP], points[key], color=colour, label=labels[key][:LONGEST_NAME], marker=marker, markersize=3
            )
    named = len(axis.lines) <= MOST_NAMED
    axis.set_title(title if named else f"{title} ({len(axis.lines)} lines)", fontsize=10)
    axis.set_xlabel("optimiser step", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    if axis.has_data() and named:
        axis.legend(fontsize=8, frameon=False, ncols=1 + len(axis.lines) // LINES_BY_COLUMN)


def save_curves(run_dir: Path) -> Path:
    """Draw `metrics.csv` of a run directory into its `curves.png`."""
    source = RunDirectory(run_dir).metrics
    if not source.is_file():
        raise UserError(f"no {METRICS} in {run_dir}; give the directory of a run that logged to CSV")
    target = RunDirectory(run_dir).curves
    with reading(source):
        try:
            metrics = pd.read_csv(source).rename(columns=present_name)
            metrics[STEP].astype(float)
        except (ValueError, KeyError) as error:  # what pandas raises on damage
            raise UserError(f"{source} is not what a run wrote ({error}); restore it") from None
    with save_atomically(target) as part:
        draw_curves(metrics).savefig(part, dpi=130, format="png")
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the curves of a run from its metrics.csv.")
    parser.add_argument("run_dir", type=Path)
    arguments = parser.parse_args()
    with report_user_errors("run directory"):
        print(save_curves(arguments.run_dir))


if __name__ == "__main__":
    main()
