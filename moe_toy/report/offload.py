"""The section about decoding with experts in slow memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moe_toy.report.figures import offload
from moe_toy.report.page import Section, figures, html_table
from moe_toy.results import Results

if TYPE_CHECKING:
    import pandas as pd

HEADINGS = {
    "policy": "policy",
    "cache_ratio": "cache ratio",
    "tokens_per_second": "tokens/s",
    "ms_per_token": "ms per token",
    "predicted_ms": "predicted",
    "p50_ms": "p50",
    "p95_ms": "p95",
    "p99_ms": "p99",
    "hit_rate": "hit rate",
    "simulated_hit_rate": "simulated",
    "megabytes": "MB per token",
    "speculative_hit_rate": "loaded ahead",
    "speculative_megabytes": "MB ahead per token",
    "prefill_ms": "prompt, ms",
}


def measured_section(results: Results) -> Section | None:
    if "offload" not in results.tables:
        return None
    table, facts = results.tables["offload"], results.summary["offload"]
    shown = {
        "Time of a token | measured, and predicted from a calibration": offload.time_by_ratio(table),
        "Tokens per second": offload.speed_by_ratio(table),
        "What the time is spent on": offload.parts_by_ratio(table),
        "Hit rate | of the engine, and of a simulation with the same policy": offload.hit_rate_by_ratio(table),
        "Read per token": offload.bytes_by_ratio(table),
        "Slow tokens": offload.percentiles_by_ratio(table),
    }
    if table.domain.nunique() > 1:
        ratios = offload.pooled(table).cache_ratio
        shown["By domain"] = offload.time_by_domain(table, float(ratios.loc[(ratios - 2).abs().idxmin()]))
    return Section(
        "Measured",
        f"{_what(facts)}, with experts {facts['place']} and a few of them cached: a missed expert is loaded before the "
        "token goes on. A cache ratio of 1 holds as many experts as a token activates in all layers.",
        figures(shown) + html_table(_shown(table)),
        _note(facts),
    )


def _what(facts: dict) -> str:
    if facts["computes"]:
        return "Decoding token by token"
    return "Recorded routing, replayed token by token without computing"


def _note(facts: dict) -> str:
    length = f"{facts['prompt_length']} tokens" if facts["computes"] else "The tokens of the prompt"
    same = (
        "decodes the same tokens and gives the logits of the resident model to the bit"
        if facts["computes"]
        else "asks for the same experts, and times are of loading alone"
    )
    return (
        f"{length} are read at once (timed apart) and {facts['decode_length']} decoded one by one, "
        f"{_count(facts['samples_per_domain'], 'sequence')} of each domain, caches empty before each; every arm "
        f"{same}, and all run there and back again. {facts['num_rows']} experts of {facts['row_bytes'] / 1024:.0f} KiB"
        f"{' (' + facts['dtype'] + ')' if facts['computes'] else ''}, {_count(facts['threads'], 'reader thread')}, "
        f"{facts['cpu_threads']} computing, on {facts['processor']}. {_calibration(facts)} {_foretold(facts)}"
    )


def _foretold(facts: dict) -> str:
    error = facts["prediction_error"]
    if error is None:
        return (
            "While a layer computes, the experts that the router of the next layer chooses from the same input are "
            "loaded ahead, into slots of the cache that no policy has; how much time this saves is not predicted."
        )
    return (
        f"The prediction is off by {100 * error['median']:.0f} % in the median arm and {100 * error['worst']:.0f} % in "
        "the worst."
    )


def _count(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


def _calibration(facts: dict) -> str:
    found = facts["calibration"]
    speed = found["gigabytes_per_second"]
    moving = f" and {speed:.2g} GB/s" if speed else ""
    delay = f" {facts['delay_ms']:g} ms were added to every read." if facts["delay_ms"] else ""
    return (
        f"Calibration: {found['compute_ms']:.2f} ms to compute a token, {found['latency_ms']:.3f} ms for a round of "
        f"reads{moving}.{delay}"
    )


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    rows = table[table.domain.isna()].assign(megabytes=table.bytes_per_token / 1e6)
    rows = rows.assign(policy=[offload.name_of(policy) for policy in rows.policy])
    rows = rows.assign(speculative_megabytes=rows.speculative_bytes_per_token / 1e6)
    left_out = set() if rows.speculative_megabytes.any() else {"speculative_hit_rate", "speculative_megabytes"}
    columns = [name for name in HEADINGS if name not in left_out]
    return rows.sort_values(["cache_ratio", "policy"])[columns].rename(columns=HEADINGS)
