"""What benchmarks/gpu.py measured, as rows of a table."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any


@dataclass(frozen=True)
class Row:
    name: str
    tokens: int
    recompute: bool
    compiled: bool
    ms: float | None = None
    tokens_per_s: float | None = None
    of_peak: float | None = None
    """The model's operations, without the half of attention that the causal mask saves, as a share of the GEMM peak
    measured in the same run. (`train/mfu` counts attention whole and takes the data sheet's peak.)"""
    peak_gib: float | None = None
    first_step_s: float | None = None
    failed: str | None = None


def time_of_recipe(rows: list[Row]) -> dict[str, float]:
    """Days of the paper's 10,000 steps of 1024 x 4096 tokens at the best speed of the baseline, on 1 and 8 GPUs."""
    speeds = [row.tokens_per_s for row in rows if row.name == "moe_toy baseline" and row.tokens_per_s]
    return {str(gpus): 10_000 * 1024 * 4096 / (max(speeds) * gpus) / 86400 for gpus in (1, 8)} if speeds else {}


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def line_of(row: dict[str, Any]) -> str:
    flags = ["yes" if row[name] else "no" for name in ("recompute", "compiled")]
    if row["failed"]:
        return f"| {row['name']} | {row['tokens']:,} | {' | '.join(flags)} | {row['failed']} | | | | |"
    peak = "not measured" if row["peak_gib"] is None else f"{row['peak_gib']:.1f}"
    speed = f"{row['ms']:.0f} | {row['tokens_per_s']:,.0f} | {row['of_peak']:.0%}"
    numbers = f"{speed} | {peak} | {row['first_step_s']:.0f}"
    return f"| {row['name']} | {row['tokens']:,} | {' | '.join(flags)} | {numbers} |"


def markdown(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items() if number)
    head = f"{result['device']}, {versions}, CUDA {result['cuda']}, GEMM peak {result['gemm_peak_tflops']:.1f} TFLOP/s"
    table = [
        "| | tokens a step | recomputed | compiled | ms | tokens/s | of GEMM peak | GiB | first step, s |",
        "|---|---|---|---|---|---|---|---|---|",
        *map(line_of, result["rows"]),
    ]
    shares = ", ".join(f"{name} {share:.0%}" for name, share in sorted(result["shares_of_a_step"].items()))
    days = ", ".join(f"{days:.1f} days on {gpus}" for gpus, days in result["days_to_10000_steps"].items())
    return "\n".join([head, "", *table, "", f"Shares of a step: {shares}", f"10,000 steps of the recipe: {days}", ""])
