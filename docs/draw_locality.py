"""Schemes of locality beside each other, drawn: `python docs/draw_locality.py PICTURE.png SWEEP_DIRECTORY`.

Reads results.parquet of a sweep over `locality` and `balance.coefficient`.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from moe_toy.checks.mistakes import report_user_errors
from moe_toy.errors import UserError
from moe_toy.report.figures.locality import BITS, HIT_RATE
from moe_toy.report.sweep_files import read_sweep

LOOKS = {
    "none": ("black", "o"),
    "contrast": ("#0072B2", "D"),
    "residency": ("#D55E00", "s"),
    "document_pool": ("#009E73", "^"),
    "adjacent": ("#CC79A7", "v"),
}
PANELS = (("misses", BITS), ("load/cv", HIT_RATE))
NAMES = {
    "misses": "misses of an LRU cache of twice the active experts",
    BITS: "bits per byte",
    "load/cv": "global imbalance (CV of load)",
    HIT_RATE: "hit rate of that cache",
}


def draw(results: pd.DataFrame) -> plt.Figure:
    """A dot for each run, a larger mark for the mean over the seeds of an arm. A line leads along the balance
    coefficients of a scheme, a pale one of a scheme at another strength than its own."""
    results = results.assign(misses=1 - results[HIT_RATE])
    figure, axes = plt.subplots(1, len(PANELS), figsize=(11, 4.2), layout="constrained")
    for scheme, runs in results.groupby("locality", sort=False):
        name, _, strength = scheme.partition("/")
        colour, marker = LOOKS[name]
        opacity = 0.5 if strength else 1.0
        coefficients = runs["balance.coefficient"].astype(float)
        means = runs.groupby(coefficients)[["misses", BITS, "load/cv", HIT_RATE]].mean()
        for axis, (x, y) in zip(axes, PANELS, strict=True):
            axis.scatter(runs[x], runs[y], 10, color=colour, alpha=0.4, linewidths=0)
            axis.plot(means[x], means[y], marker=marker, color=colour, alpha=opacity, lw=1.2, label=scheme)
    for axis, (x, y) in zip(axes, PANELS, strict=True):
        axis.set(xlabel=NAMES[x], ylabel=NAMES[y])
        axis.grid(alpha=0.25)
    axes[0].legend(frameon=False, fontsize=8, title="locality=", title_fontsize=8)
    return figure


def main(arguments: list[str]) -> None:
    with report_user_errors("picture"):
        if len(arguments) != 2:
            raise UserError("give a picture to write and the directory of a sweep")
        picture, sweep = map(Path, arguments)
        draw(read_sweep(sweep)).savefig(picture, dpi=110)


if __name__ == "__main__":
    main(sys.argv[1:])
