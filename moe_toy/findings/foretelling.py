"""Does routing foretell time? What models with experts in slow memory took, beside their consistency and hit rates."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from statistics import NormalDist, correlation

import pandas as pd

from moe_toy.errors import UserError
from moe_toy.findings.comparison import fisher
from moe_toy.findings.student_t import CONFIDENCE
from moe_toy.results import Results

SRP = "srp@16"
HIT_RATE = "hit_rate"
MEASURES = {
    HIT_RATE: "hit rate",
    "mb_per_token": "bytes read",
    "stall_ms": "waiting",
    "stall_us_per_expert": "waiting per active expert",
    "overhead": "time over the resident model's, - 1",
}
"""What is foretold, as columns of `decoded_arms`, with words for a reader. A model with more active experts reads more
of them at an equal hit rate, so the fourth divides by how many a token activates in all layers."""
PLACE = ["store", "policy", "cache_ratio"]


def decoded_arms(evaluations: Iterable[Results]) -> pd.DataFrame:
    """One row per evaluation with `offload`, policy and cache ratio, pooled over domains: `arm`, `store`, SRP@16, what
    a token took and read, and `overhead`, its time relative to that of the same model with all experts at hand, minus
    one. Raises `UserError` for an evaluation that decoded nothing, or has no segments of 16 tokens."""
    rows = []
    for results in evaluations:
        name = results.summary["name"]
        if not results.summary.get("offload", {}).get("computes"):
            raise UserError(f"{name} has no measured decoding; evaluate a checkpoint with offload=disk")
        srp = results.tables["srp"]
        srp = srp[(srp.level == "model") & (srp.segment_length == 16) & srp.domain.isna()].srp
        if srp.empty:
            raise UserError(f"{name} was evaluated without segments of 16 tokens; add 16 to metrics.segment_lengths")
        facts, table = results.summary["offload"], results.tables["offload"]
        table = table[table.domain.isna()]
        active = results.summary["top_k"] * len(results.summary["layer_ids"])
        resident = table[table.policy == "resident"].ms_per_token.item()
        arm = re.search(r"arm=([^,]+)", name)
        for row in table[table.policy != "resident"].itertuples():
            rows.append(
                {
                    "arm": arm[1] if arm else name,
                    "store": facts["store"],
                    "policy": row.policy,
                    "cache_ratio": row.cache_ratio,
                    "active_experts": active,
                    "row_kib": facts["row_bytes"] / 1024,
                    SRP: srp.item(),
                    HIT_RATE: row.hit_rate,
                    "mb_per_token": row.bytes_per_token / 1e6,
                    "resident_ms": resident,
                    "ms_per_token": row.ms_per_token,
                    "predicted_ms": row.predicted_ms,
                    "compute_ms": row.compute_ms,
                    "stall_ms": row.stall_ms,
                    "management_ms": row.management_ms,
                    "stall_us_per_expert": 1000 * row.stall_ms / active,
                    "overhead": row.ms_per_token / resident - 1,
                }
            )
    return pd.DataFrame(rows)


def foretell(arms: pd.DataFrame, without: Sequence[str] = ()) -> pd.DataFrame:
    """r over arms of SRP@16, and of the hit rate, with each of `MEASURES`, for each store, policy and cache ratio, with
    its 95 % interval; once more without the arms named `without`."""
    rows = []
    for left_out in ((), tuple(without)) if without else ((),):
        kept = arms[~arms.arm.isin(left_out)]
        for place, group in kept.groupby(PLACE, sort=False):
            for x in (SRP, HIT_RATE):
                for y in MEASURES:
                    if x == y:
                        continue
                    pairs = group[[x, y]].dropna()
                    if len(pairs) > 3 and pairs.nunique().min() > 1:  # of a constant there is no r
                        r, low, high = correlation_interval(list(pairs[x]), list(pairs[y]))
                        said = dict(zip(PLACE, place, strict=True)) | {"x": x, "y": y, "arms": len(pairs)}
                        rows.append(said | {"without": " ".join(left_out), "r": r, "ci_low": low, "ci_high": high})
    return pd.DataFrame(rows)


def correlation_interval(
    x: Sequence[float], y: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """Pearson's r of four pairs or more, and its interval by Fisher's transformation."""
    r = correlation(x, y)
    width = NormalDist().inv_cdf((1 + confidence) / 2) / math.sqrt(len(x) - 3)
    return r, math.tanh(fisher(r) - width), math.tanh(fisher(r) + width)
