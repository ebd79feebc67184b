"""The answer: does this model suit expert offloading, and how large should its cache be?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from moe_toy.errors import UserError
from moe_toy.findings import paper
from moe_toy.findings.hit_rates import at_capacity, at_ratio, model_curve, order_of
from moe_toy.findings.knee import SHARE, find_knee
from moe_toy.findings.throughput import ASSUMPTIONS, Device
from moe_toy.results import Results

if TYPE_CHECKING:
    import pandas as pd


def recommend(
    results: Results,
    *,
    bandwidth_gbps: float | None = None,
    expert_bytes: float | None = None,
    compute_ms: float | None = None,
    share: float = SHARE,
) -> Results:
    """Results with `summary["recommendation"]`: consistency, worst domain and cache size, over segments of 16 tokens
    (or the nearest length measured; then without a group).

    The recommended cache is the smallest one, shared by all layers, at which both SCH and LRU have reached `share` of
    their greatest gain over chance (`find_knee`), as an engine asks for experts, layer by layer; None where either
    never gains. It is never below one token's cycle, where LRU evicts what comes next. With the three numbers of a
    device it also holds tokens per second there, and a table `throughput` has them for every capacity. Raises
    `UserError` if only some of the three are given.
    """
    device = Device.from_options(bandwidth_gbps=bandwidth_gbps, expert_bytes=expert_bytes, compute_ms=compute_ms)
    consistency = _consistency(results)
    curves = {
        "sch": model_curve(results.tables["cache"], "sch", consistency["segment_length"]),
        "lru": model_curve(results.tables["cache"], "lru"),
    }
    cache = _cache(curves, results.summary, share)
    if cache is not None:
        cache["order"] = order_of(results.tables["cache"])
    recommendation = consistency | {"cache": cache}
    tables = {name: table for name, table in results.tables.items() if name != "throughput"}  # of another device
    if device is not None:
        tables["throughput"] = _throughput(curves, device, _experts_per_token(results.tables["load"]))
        recommendation["throughput"] = vars(device) | {"assumptions": list(ASSUMPTIONS)}
    return replace(results, summary=results.summary | {"recommendation": recommendation}, tables=tables)


def _consistency(results: Results) -> dict[str, Any]:
    scores = results.tables["srp"]
    scores = scores[scores.level == "model"]
    if scores.empty:
        raise UserError("no segment length fits the sequences, so there is no SRP; evaluate longer sequences")
    length = paper.nearest_length(int(m) for m in scores.segment_length)
    scores = scores[scores.segment_length == length]
    model = scores[scores.domain.isna()].iloc[0]
    by_domain = scores[scores.domain.notna()].set_index("domain").srp.dropna()
    return {
        "segment_length": length,
        "srp": float(model.srp),
        "srp_floor": float(2 * model.activation_rate / (1 + model.activation_rate)),  # 2k / (E + k)
        **_shuffled(results, length),
        "group": paper.group(model.srp) if length == paper.SEGMENT_LENGTH else None,
        "worst_domain": None if by_domain.empty else str(by_domain.idxmin()),
        "worst_domain_srp": None if by_domain.empty else float(by_domain.min()),
    }


def _shuffled(results: Results, length: int) -> dict[str, float | None]:
    """SRP of a few sequences of each domain, and of the same decisions dealt to other tokens of these: what popular
    experts alone explain."""
    scores = {"srp_unshuffled": None, "srp_shuffled": None}
    if "nulls" in results.tables:
        nulls = results.tables["nulls"]
        for row in nulls[(nulls.metric == "srp") & (nulls.segment_length == length)].head(1).itertuples():
            scores = {"srp_unshuffled": float(row.raw), "srp_shuffled": float(row.corpus)}
    return scores


def _cache(curves: dict[str, pd.DataFrame], summary: dict[str, Any], share: float) -> dict[str, Any] | None:
    num_items = len(summary["layer_ids"]) * summary["num_experts"]
    knees = {}
    curves = {policy: curve.dropna(subset="hit_rate") for policy, curve in curves.items()}
    for policy, curve in curves.items():
        knee = find_knee(curve.capacity.to_numpy(int), curve.hit_rate.to_numpy(float), num_items, share)
        if knee is None:
            return None
        ratio = float(at_capacity(curve, knee.capacity).cache_ratio)
        at_advice = at_ratio(curve, paper.CACHE_RATIO)
        knees[policy] = vars(knee) | {"cache_ratio": ratio, "hit_rate_at_paper_ratio": float(at_advice.hit_rate)}
    cycle = len(summary["layer_ids"]) * summary["top_k"]
    capacity = max(cycle, *(knee["capacity"] for knee in knees.values()))
    below = curves["lru"][curves["lru"].capacity < cycle].hit_rate
    chosen = {policy: at_capacity(curve, capacity) for policy, curve in curves.items()}
    return {
        "share": share,
        "capacity": capacity,
        "num_items": num_items,
        "cache_ratio": float(chosen["lru"].cache_ratio),
        "paper_ratio": paper.CACHE_RATIO,
        "hit_rate": {policy: float(row.hit_rate) for policy, row in chosen.items()},
        "knee": knees,
        "cycle": cycle,
        "lru_below_cycle": float(below.max()) if len(below) else None,
    }


def _experts_per_token(load: pd.DataFrame) -> float:
    """In all layers together, where tokens have different numbers of experts in the mean."""
    return float(load[load.domain.isna()].activation_rate.sum())


def _throughput(curves: dict[str, pd.DataFrame], device: Device, experts_per_token: float) -> pd.DataFrame:
    import pandas as pd  # half a second

    table = pd.concat(curves.values(), ignore_index=True)[["policy", "capacity", "cache_ratio", "hit_rate"]]
    table["cache_bytes"] = table.capacity.astype(float) * device.expert_bytes
    table["tokens_per_second"] = device.tokens_per_second(table.hit_rate.to_numpy(float), experts_per_token)
    return table
