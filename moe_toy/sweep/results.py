"""`results.parquet`: one row per finished arm with everything that it logged last."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from moe_toy.files.atomic import save_atomically
from moe_toy.report.sweep_files import METRIC, RESULTS, read_metrics, read_sweep
from moe_toy.sweep.arm import SEED, Arm
from moe_toy.sweep.record import State, read_record


def write_results(arms: Sequence[Arm], directory: Path) -> None:
    """Add these arms to the table, or replace their rows: a command may run a part of the grid, and end while another
    does."""
    path = directory / RESULTS
    table = pd.DataFrame([result(arm) for arm in arms])
    with FileLock(directory / "results.lock"):
        if path.exists():
            before = read_sweep(directory)
            others = before[~before.run_dir.isin(table.run_dir)]
            finished = [read_record(directory / run).state is State.DONE for run in others.run_dir]
            table = pd.concat([others[finished], table])
        with save_atomically(path) as part:
            table.to_parquet(part, index=False)


def result(arm: Arm) -> dict[str, Any]:
    """`arm`, `seed`, `run_dir` (beside the table), sizes and costs, what it varies, and every metric by its key."""
    return {
        "arm": arm.name,
        "seed": arm.seed,
        "run_dir": arm.directory.name,
        "num_experts": arm.model.moe.num_experts,
        "top_k": arm.model.moe.top_k,
        "num_moe_layers": len(arm.model.moe_layers),
        "total_parameters": arm.model.total_parameters,
        "active_parameters": arm.model.active_parameters,
        "flops_per_token": arm.flops_per_token,
        "seconds": arm.record.seconds,
        **{key: value for key, value in arm.choices.items() if key not in ("arm", SEED)},
        **final_metrics(arm.directory),
    }


def final_metrics(directory: Path) -> dict[str, float]:
    """The last validation, if there was one, and the last value of what training or a callback of the user logs."""
    metrics = read_metrics(directory)
    if metrics is None:
        return {}
    validation = metrics[[key for key in metrics if METRIC.match(key)]].dropna(axis="columns", how="all")
    rows = metrics[["step", *validation]][validation.notna().any(axis="columns")]  # whatever callbacks there were
    others = metrics.drop(columns=["epoch", "step", *filter(METRIC.match, metrics)], errors="ignore")
    last = others.dropna(axis="columns", how="all").ffill().tail(1)
    return dict(ChainMap(*rows.tail(1).to_dict("records"), *last.to_dict("records")))
