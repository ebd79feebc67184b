"""`results.parquet`: one row per finished arm with everything that it logged last."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from moe_toy.report.sweep import RESULTS
from moe_toy.sweep.arm import SEED, Arm


def write_results(arms: Sequence[Arm], directory: Path) -> None:
    table = pd.DataFrame([result(arm) for arm in arms])
    part = directory / f"{RESULTS}.part"
    table.to_parquet(part, index=False)
    part.replace(directory / RESULTS)


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
    """The last validation, and the last value of what training logs."""
    path = directory / "metrics.csv"
    if not path.exists():  # a run without loggers
        return {}
    metrics = pd.read_csv(path).drop(columns="epoch", errors="ignore")
    training = metrics.filter(like="train/").ffill().iloc[-1]
    validation = metrics[metrics["val/loss"].notna()].iloc[-1].drop(training.index)
    return {**validation.to_dict(), **training.to_dict()}
