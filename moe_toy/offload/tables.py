"""From what each step took to the tables of a report: one row per arm, and per arm and domain."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from moe_toy.offload.measure import Measurement
from moe_toy.offload.measure_replay import ReplayMeasurement
from moe_toy.offload.passes import CALIBRATION, RESIDENT
from moe_toy.offload.prediction import Prediction

ARM = ["policy", "capacity"]
PERCENTILES = (50, 95, 99)


PLACES = {
    "disk": "on a disk, read past the page cache (O_DIRECT)",
    "page_cache": "in a file that the page cache of the system holds",
    "host": "in memory that nothing computes from",
}


def tables_of(measurement: Measurement | ReplayMeasurement) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Run it: `offload` (one row per arm, and per arm and domain), `offload_steps` (one per token), and what holds for
    all of them."""
    steps = measurement.run()
    prediction = fit_prediction(steps)
    table = decoding_table(steps, prediction, measurement.active)
    if measurement.settings.prefetch != "none":
        table["predicted_ms"] = np.nan  # nothing here foretells how much of loading goes on while others are computed
    facts = measurement.settings.as_json() | {
        "computes": isinstance(measurement, Measurement),
        "place": PLACES[measurement.settings.store],
        "processor": processor(measurement.device),
        "cpu_threads": torch.get_num_threads(),
        "row_bytes": measurement.row_bytes,
        "num_rows": measurement.num_rows,
        "calibration": {
            "compute_ms": 1000 * prediction.compute,
            "latency_ms": 1000 * prediction.latency,
            "gigabytes_per_second": 1e-9 / prediction.seconds_per_byte if prediction.seconds_per_byte else None,
        },
        "prediction_error": prediction_errors(table) if table.predicted_ms.notna().any() else None,
    }
    return {"offload": table, "offload_steps": steps}, facts


def processor(device: torch.device) -> str:
    """As the system calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        named = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        named = None
    return named[1].strip() if named else platform.machine()


def fit_prediction(steps: pd.DataFrame) -> Prediction:
    """From the calibration of both passes."""
    decoding = steps[(steps.policy == CALIBRATION) & (steps.step > 0)]
    means = decoding.groupby(["rounds", "bytes"], as_index=False).seconds.mean()
    columns = (means[name].to_numpy(float) for name in ("seconds", "rounds", "bytes"))
    return Prediction.fit(*columns)


def decoding_table(steps: pd.DataFrame, prediction: Prediction, active: int) -> pd.DataFrame:
    """Means over tokens, of all domains (`domain` is empty) and of each. `active`: experts of a token, all layers."""
    steps = steps[steps.policy != CALIBRATION]
    pooled = [_summarise(rows, prediction) | _names(key, None) for key, rows in steps.groupby(ARM, sort=False)]
    single = [
        _summarise(rows, prediction) | _names(key[:2], key[2])
        for key, rows in steps.groupby([*ARM, "domain"], sort=False)
    ]
    table = pd.DataFrame(pooled + single)
    table.insert(1, "cache_ratio", table.capacity / active)
    return table


def _names(arm: tuple[Any, ...], domain: str | None) -> dict[str, Any]:
    return {"policy": arm[0], "capacity": int(arm[1]), "domain": domain}


def _summarise(steps: pd.DataFrame, prediction: Prediction) -> dict[str, Any]:
    tokens, prompts = steps[steps.step > 0], steps[steps.step == 0]
    mean = tokens.mean(numeric_only=True)
    predicted = prediction(tokens.rounds.to_numpy(float), tokens.bytes.to_numpy(float)).mean()
    resident = (steps.policy == RESIDENT).all()
    return {
        "tokens": len(tokens),
        "tokens_per_second": 1 / mean.seconds,
        "ms_per_token": 1000 * mean.seconds,
        "predicted_ms": np.nan if resident else 1000 * predicted,
        "compute_ms": 1000 * (mean.seconds - mean.stall - mean.management),
        "stall_ms": 1000 * mean.stall,
        "management_ms": 1000 * mean.management,
        "hit_rate": np.nan if resident else 1 - (mean.reads + mean.speculative_hits) / mean.requests,
        "simulated_hit_rate": np.nan if resident else 1 - mean.simulated_reads / mean.requests,
        "reads_per_token": mean.reads,
        "bytes_per_token": mean.bytes,
        "speculative_hit_rate": np.nan if resident else mean.speculative_hits / mean.requests,
        "speculative_bytes_per_token": mean.get("speculative_bytes", 0.0),  # a replay guesses nothing
        **{f"p{p}_ms": 1000 * np.percentile(tokens.seconds, p) for p in PERCENTILES},
        "prefill_ms": 1000 * prompts.seconds.mean(),
        "prefill_bytes": prompts.bytes.mean(),
    }


def prediction_errors(table: pd.DataFrame) -> dict[str, float]:
    """Median and worst of |predicted / measured - 1| over arms, none of which was calibrated on."""
    arms = table[table.domain.isna() & table.predicted_ms.notna()]
    errors = (arms.predicted_ms / arms.ms_per_token - 1).abs()
    return {"median": float(errors.median()), "worst": float(errors.max())}
