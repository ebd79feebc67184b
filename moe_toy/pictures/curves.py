"""The curves of one run as a picture: `python -m moe_toy.pictures.curves RUN_DIRECTORY`."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from moe_toy.errors import EXIT_USER_ERROR, UserError
from moe_toy.files.atomic import save_atomically
from moe_toy.runs.run_directory import METRICS, RunDirectory

STEP = "step"
PANELS: dict[str, dict[str, str]] = {
    "Loss (nats per token)": {"train/loss": "training", "val/loss": "validation"},
    "Local routing consistency (SRP)": {f"routing/srp@{m}": f"{m} tokens" for m in (4, 16, 64, 256)},
    "Load imbalance (CV of load)": {
        "routing/load_cv": "over everything",
        "routing/load_cv@sequence": "within a sequence",
        "routing/load_cv@16": "within 16 tokens",
    },
    "Specialization of experts": {
        "routing/domain_specialization": "domain",
        "routing/vocabulary_specialization/input": "input token",
        "routing/vocabulary_specialization/target": "target token",
    },
}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe and Ito: safe for colour-blind readers


def draw_curves(metrics: pd.DataFrame) -> Figure:
    """Four panels over optimiser steps. `metrics` has a `step` column and one column per logged key."""
    figure = Figure(figsize=(13, 3.4), layout="constrained")
    for axis, (title, series) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for colour, (key, label) in zip(COLOURS, series.items(), strict=False):
            if key in metrics:
                points = metrics[[STEP, key]].dropna()
                marker = "" if key.startswith("train/") else "o"
                axis.plot(points[STEP], points[key], color=colour, label=label, marker=marker, markersize=3)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("optimiser step", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        if axis.has_data():
            axis.legend(fontsize=8, frameon=False)
    return figure


def save_curves(run_dir: Path) -> Path:
    """Draw `metrics.csv` of a run directory into its `curves.png`."""
    source = RunDirectory(run_dir).metrics
    if not source.is_file():
        raise UserError(f"no {METRICS} in {run_dir}; give the directory of a run that logged to CSV")
    target = RunDirectory(run_dir).curves
    with reading(source):
        metrics = pd.read_csv(source)
    with save_atomically(target) as part:
        draw_curves(metrics).savefig(part, dpi=130, format="png")
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the curves of a run from its metrics.csv.")
    parser.add_argument("run_dir", type=Path)
    try:
        print(save_curves(parser.parse_args().run_dir))
    except UserError as error:
        parser.exit(EXIT_USER_ERROR, f"error: {error}\n")


if __name__ == "__main__":
    main()
