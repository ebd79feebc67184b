"""Does SRP foretell time? Measured decoding of several models: `python docs/draw_offload.py ARMS.csv [EVALUATION ...]`.

Evaluations with `offload=` are gathered in ARMS.csv; without any, that file is read. Draws ARMS.png and writes the
correlations over arms, with intervals, to ARMS_correlations.csv.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from moe_toy.checks.mistakes import report_user_errors
from moe_toy.errors import UserError
from moe_toy.files.csv_tables import read_csv, write_csv
from moe_toy.findings.foretelling import HIT_RATE, SRP, decoded_arms, foretell
from moe_toy.results import Results

RATIO = 2
APART = ("nolb",)
"""Collapsed, and so far from all others that it alone could make a correlation."""
PANELS = {
    HIT_RATE: "hit rate of the cache",
    "stall_us_per_expert": "waiting, µs per active expert",
    "overhead": "added time: of a token over the resident model's, - 1",
}
COLOURS = {"disk": "tab:red", "page_cache": "tab:blue", "host": "tab:green"}


def draw(arms: pd.DataFrame, correlations: pd.DataFrame) -> plt.Figure:
    arms = arms[arms.cache_ratio == RATIO]
    figure, axes = plt.subplots(1, len(PANELS), figsize=(13, 4.4), layout="constrained")
    for axis, (measure, title) in zip(axes, PANELS.items(), strict=True):
        for store, colour in COLOURS.items():
            rows = arms[arms.store == store]
            if rows.empty or (measure == HIT_RATE and store != "disk"):  # the same in every store
                continue
            axis.scatter(rows[SRP], rows[measure], 40, color=colour, label=_label(correlations, store, measure))
            if store == "disk":
                for arm, *place in rows[["arm", SRP, measure]].itertuples(index=False, name=None):
                    axis.annotate(arm, place, (4, 4), textcoords="offset points", fontsize=7)
        axis.set(xlabel="local routing consistency (SRP@16)", ylabel=title)
        axis.grid(alpha=0.25)
        axis.legend(fontsize=8)
    return figure


def _label(correlations: pd.DataFrame, store: str, measure: str) -> str:
    asked = (correlations.store == store) & (correlations.cache_ratio == RATIO)
    asked &= (correlations.x == SRP) & (correlations.y == measure) & (correlations.without == "")
    name = "all stores" if measure == HIT_RATE else store.replace("_", " ")
    found = correlations[asked]
    return name if found.empty else "{0}: r = {1.r:.2f} ({1.ci_low:.2f} to {1.ci_high:.2f})".format(name, found.iloc[0])


def main(arguments: list[str]) -> None:
    with report_user_errors("picture"):
        if not arguments:
            raise UserError("give a CSV file of measured arms, and the evaluations to write it from")
        table, *folders = map(Path, arguments)
        if folders:
            write_csv(decoded_arms(map(Results.load, folders)), table)
        arms = read_csv(table)
        correlations = foretell(arms, without=APART)
        write_csv(correlations, table.with_name(f"{table.stem}_correlations.csv"))
        draw(arms, correlations).savefig(table.with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main(sys.argv[1:])
