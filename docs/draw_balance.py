"""The balance horizon as a table and a picture, from finished runs: `python docs/draw_balance.py RUN_DIRECTORY ...`.

Reads the config and the last validation of every run; writes balance.csv and balance.png beside this file.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import yaml

from moe_toy.runs.curve_keys import present_name

HERE = Path(__file__).parent
HORIZON = ["segment", "sequence", "micro_batch", "global_batch", "ema"]  # shortest first
COLOURS = dict(zip(HORIZON, ["#440154", "#3b528b", "#21918c", "#5ec962", "#e6b800"], strict=True))
OTHER = {"none": ("*", "black"), "loss_free": ("D", "#888888")}
SIZES = {0.001: 30, 0.01: 80, 0.1: 180}
COLUMNS = {
    "loss": "val/loss",
    "bits_per_byte": "val/bits_per_byte",
    "srp16": "consistency/srp@16",
    "sch16_ratio2": "cache/sch@16/ratio_2",
    "global_max_violation": "load/max_violation",
    "global_cv": "load/cv",
    "cv16": "load/cv@16",
    "dead_experts": "load/dead_experts",
}
PANELS = [("global_max_violation", "srp16"), ("cv16", "srp16"), ("srp16", "loss")]
NAMES = {
    "global_max_violation": "global imbalance (MaxVio)",
    "cv16": "imbalance within 16 tokens (CV)",
    "srp16": "local routing consistency (SRP@16)",
    "loss": "validation loss (nats per token)",
}


def read_run(folder: Path) -> dict[str, object]:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    balance = config["balance"]
    scheme = balance.get("scope", "loss_free" if "rate" in balance else "none")
    estimate = balance.get("estimate")
    last = pd.read_csv(folder / "metrics.csv").rename(columns=present_name).dropna(subset="val/loss").iloc[-1]
    if last["step"] != config["trainer"]["max_steps"]:
        raise SystemExit(f"{folder} stopped at step {last['step']:.0f}; finish it first")
    values = {name: last[key] for name, key in COLUMNS.items()}
    return {"scheme": scheme, "estimate": estimate, "coefficient": balance.get("coefficient"), **values}


def draw(table: pd.DataFrame) -> plt.Figure:
    figure, axes = plt.subplots(1, len(PANELS), figsize=(13, 4), layout="constrained")
    for axis, (x, y) in zip(axes, PANELS, strict=True):
        for scheme in HORIZON:
            rows = table[(table.scheme == scheme) & (table.estimate != "prefix")].sort_values("coefficient")
            sizes = [SIZES[coefficient] for coefficient in rows.coefficient]
            axis.plot(rows[x], rows[y], color=COLOURS[scheme], lw=1, alpha=0.6)
            axis.scatter(rows[x], rows[y], sizes, color=COLOURS[scheme], label=scheme)
        for scheme, (marker, colour) in OTHER.items():
            rows = table[table.scheme == scheme]
            axis.scatter(rows[x], rows[y], 70, color=colour, marker=marker, label=scheme)
        if x == "global_max_violation":
            axis.set_xscale("log")
            axis.set_xticks([0.3, 0.5, 1, 2, 4], ["0.3", "0.5", "1", "2", "4"])
            axis.minorticks_off()
        axis.set(xlabel=NAMES[x], ylabel=NAMES[y])
        axis.grid(alpha=0.25)
    axes[0].legend(frameon=False, fontsize=8, title="load evened over", title_fontsize=8)
    axes[1].set_title("larger dots: coefficient 0.001, 0.01, 0.1", fontsize=9)
    return figure


def main() -> None:
    folders = [Path(argument) for argument in sys.argv[1:]]
    table = pd.DataFrame([read_run(folder) for folder in folders]).sort_values(["scheme", "coefficient"])
    table.round(4).to_csv(HERE / "balance.csv", index=False)
    draw(table).savefig(HERE / "balance.png", dpi=110)


if __name__ == "__main__":
    main()
