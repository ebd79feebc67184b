"""What each arm does at every size and length, drawn: `python docs/draw_ladder.py PICTURE.png SWEEP_DIRECTORY ...`.

Reads results.parquet of the sweeps, sets the paper's values at 1430M beside them, and writes the numbers to a CSV file
beside the picture.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from moe_toy.checks.mistakes import report_user_errors
from moe_toy.errors import UserError
from moe_toy.files.csv_tables import write_csv
from moe_toy.findings.ladder import climb
from moe_toy.report.sweep_files import read_sweep

COLUMNS = 4


def draw(ladder: pd.DataFrame) -> plt.Figure:
    """A panel with a scale of its own for each arm of a sweep: its effect on SRP@16 at each rung, with intervals."""
    rungs = list(ladder.rung.unique())
    arms = list(ladder.arm[ladder.rung != rungs[-1]].unique())
    rows = -(-len(arms) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(13, 3 * rows), layout="constrained", squeeze=False)
    colours = plt.get_cmap("viridis")([0.15 + 0.7 * number / len(rungs) for number in range(len(rungs))])
    for axis, arm in zip(axes.flat, arms, strict=False):
        for row in ladder[ladder.arm == arm].itertuples():
            place, single = rungs.index(row.rung), pd.isna(row.ci_low)
            bars = None if single else [[row.effect - row.ci_low], [row.ci_high - row.effect]]
            marker = "D" if single else "o"
            axis.errorbar(place, row.effect, bars, fmt=marker, color=colours[place], capsize=4, markersize=7)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_title(arm)
        axis.set_xticks(range(len(rungs)), [rung.replace(", ", "\n") for rung in rungs], fontsize=8)
        axis.set_xlim(-0.5, len(rungs) - 0.5)
        axis.grid(axis="y", alpha=0.25)
    for axis in axes.flat[len(arms) :]:
        axis.set_visible(False)
    figure.supylabel("SRP@16, difference from the baseline (95 % over seeds; diamond: one run)")
    return figure


def main(arguments: list[str]) -> None:
    with report_user_errors("picture"):
        if len(arguments) < 2:
            raise UserError("give a picture to write and the directory of at least one sweep")
        picture, *sweeps = map(Path, arguments)
        ladder = climb({str(sweep): read_sweep(sweep) for sweep in sweeps})
        write_csv(ladder, picture.with_suffix(".csv"))
        draw(ladder).savefig(picture, dpi=110)


if __name__ == "__main__":
    main(sys.argv[1:])
