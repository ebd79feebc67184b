import json
from dataclasses import replace

import pandas as pd
import pytest
import torch

from moe_toy.errors import UserError
from moe_toy.findings.recommend import recommend
from moe_toy.metrics.analyze import analyze
from moe_toy.results import Results
from moe_toy.routing import RoutingTrace

CURVES = {"sch": [0.6, 0.9, 0.95, 1.0], "lru": [0.4, 0.7, 0.9, 1.0]}  # gain: 0.35 0.4 0.2 0, 0.15 0.2 0.15 0


def by_hand(lengths=(16,), srp=0.45, domains=None, curves=CURVES) -> Results:
    """One layer of four experts, one active."""
    scores = [("model", None, m, srp) for m in lengths]
    scores += [("model", name, m, value) for m in lengths for name, value in (domains or {}).items()]
    rows = [
        (policy, "model", None, m, capacity, float(capacity), rate)
        for policy, rates in curves.items()
        for m in (lengths if policy == "sch" else [None])
        for capacity, rate in enumerate(rates, start=1)
    ]
    cache = pd.DataFrame(
        rows, columns=["policy", "scope", "domain", "segment_length", "capacity", "cache_ratio", "hit_rate"]
    ).astype({"segment_length": "Int64"})
    table = pd.DataFrame(scores, columns=["level", "domain", "segment_length", "srp"]).assign(activation_rate=0.25)
    load = pd.DataFrame({"layer": 0, "expert": range(4), "domain": None, "activation_rate": 0.25})
    return Results({"layer_ids": [0], "num_experts": 4, "top_k": 1}, {"srp": table, "cache": cache, "load": load})


def found(results: Results, **options) -> dict:
    return recommend(results, **options).summary["recommendation"]


def test_the_recommended_cache_satisfies_sch_and_lru():
    cache = found(by_hand(), share=0.8)["cache"]
    assert cache["knee"]["sch"]["capacity"] == 1
    assert cache["knee"]["lru"]["capacity"] == 2
    assert cache["capacity"] == 2
    assert cache["cache_ratio"] == 2.0
    assert cache["hit_rate"] == {"sch": 0.9, "lru": 0.7}
    assert cache["knee"]["lru"]["hit_rate_at_paper_ratio"] == 0.7


def in_both_orders(results: Results, by_layer: dict[str, list[float]], **summary) -> Results:
    """The table of `by_hand` in token order, beside the same table with other hit rates in layer order."""
    cache = results.tables["cache"]
    rates = [rate for policy in ("sch", "lru") for rate in by_layer[policy]]
    cache = pd.concat([cache.assign(order="token"), cache.assign(order="layer", hit_rate=rates)])
    return replace(results, summary=results.summary | summary, tables=results.tables | {"cache": cache})


def test_what_is_recommended_is_what_a_real_cache_gets():
    cache = found(in_both_orders(by_hand(), {"sch": [0.3, 0.6, 0.95, 1.0], "lru": [0.0, 0.1, 0.9, 1.0]}))["cache"]
    assert cache["order"] == "layer"
    assert cache["capacity"] == 3
    assert cache["hit_rate"] == {"sch": 0.95, "lru": 0.9}


def test_no_cache_below_the_cycle_of_a_token_is_recommended():
    """Two layers of one expert a token: a cache of one has its knee there, but LRU finds nothing in it."""
    steep = {"sch": [0.9, 0.92, 0.95, 1.0], "lru": [0.9, 0.92, 0.95, 1.0]}
    cache = found(in_both_orders(by_hand(), steep, layer_ids=[0, 1], num_experts=2))["cache"]
    assert [knee["capacity"] for knee in cache["knee"].values()] == [1, 1]
    assert (cache["capacity"], cache["cycle"], cache["lru_below_cycle"]) == (2, 2, 0.9)


def test_consistency_names_group_floor_and_worst_domain():
    answer = found(by_hand(domains={"books": 0.3, "code": 0.6}))
    assert answer["group"] == "G2"
    assert answer["srp_floor"] == 2 / 5
    assert (answer["worst_domain"], answer["worst_domain_srp"]) == ("books", 0.3)


def test_without_domains_there_is_no_worst_one():
    assert found(by_hand())["worst_domain"] is None


def test_other_segment_lengths_give_no_group():
    answer = found(by_hand(lengths=(8, 64)))
    assert (answer["segment_length"], answer["group"]) == (8, None)


def test_a_model_that_routes_at_random_gets_no_cache():
    chance = [0.25, 0.5, 0.75, 1.0]
    assert found(by_hand(curves={"sch": CURVES["sch"], "lru": chance}))["cache"] is None


def test_a_device_turns_hit_rates_into_speed():
    results = recommend(by_hand(), bandwidth_gbps=1.0, expert_bytes=1e6, compute_ms=1.0)  # 1 ms per miss
    lru = results.tables["throughput"].query("policy == 'lru'")
    assert lru.tokens_per_second.tolist() == pytest.approx([1000 / 1.6, 1000 / 1.3, 1000 / 1.1, 1000])
    assert lru.cache_bytes.tolist() == [1e6, 2e6, 3e6, 4e6]
    assert any("does not overlap" in line for line in results.summary["recommendation"]["throughput"]["assumptions"])


def test_without_a_device_the_speed_of_an_earlier_one_is_gone():
    """An evaluation that had been measured with one was read back, and its report ended in a traceback."""
    earlier = recommend(by_hand(), bandwidth_gbps=1.0, expert_bytes=1e6, compute_ms=1.0)
    again = recommend(earlier)
    assert "throughput" not in again.tables | again.summary["recommendation"]


def test_tokens_of_different_numbers_of_experts_count_as_they_are():
    """They counted as if each had as many as the one with most: too high a floor, and too few tokens per second."""
    ids = torch.arange(64)[None, None, :, None] % 4
    none = torch.where(torch.arange(64)[None, None, :, None] % 2 == 0, (ids + 1) % 4, -1)
    trace = RoutingTrace(
        expert_ids=torch.cat([ids, none], -1), token_ids=None, num_experts=4, layer_ids=(0,), padded=True
    )
    summary = {"layer_ids": [0], "num_experts": 4, "top_k": 2}
    results = Results(summary, analyze(trace, segment_lengths=[16], cache_stride=1))
    results = recommend(results, bandwidth_gbps=1.0, expert_bytes=1e6, compute_ms=1.0)
    assert results.summary["recommendation"]["srp_floor"] == pytest.approx(2 * 1.5 / (4 + 1.5))
    row = results.tables["throughput"].query("policy == 'lru' and capacity == 1").iloc[0]
    assert row.tokens_per_second == pytest.approx(1000 / (1 + 1.5 * (1 - row.hit_rate)))


def test_half_a_device_is_refused():
    with pytest.raises(UserError, match="compute_ms is not set"):
        recommend(by_hand(), bandwidth_gbps=1.0, expert_bytes=1e6)


def test_sequences_too_short_for_any_segment_are_told():
    with pytest.raises(UserError, match="no segment length fits the sequences"):
        recommend(by_hand(lengths=()))


def test_the_results_given_stay_as_they_are(golden_results):
    before = replace(golden_results, summary=dict(golden_results.summary))
    del before.summary["recommendation"]
    after = recommend(before)
    assert "recommendation" not in before.summary
    assert after.summary["recommendation"] == golden_results.summary["recommendation"]
    json.dumps(after.summary, allow_nan=False)


def test_what_shuffled_tokens_score_is_told_where_known():
    results = by_hand()
    nulls = pd.DataFrame({"metric": ["srp", "srp", "sch"], "segment_length": [4, 16, 16], "corpus": [0.5, 0.25, 0.9]})
    answer = found(replace(results, tables=results.tables | {"nulls": nulls.assign(raw=nulls.corpus + 0.5)}))
    assert (answer["srp_shuffled"], answer["srp_unshuffled"]) == (0.25, 0.75)
    assert found(results)["srp_shuffled"] is found(results)["srp_unshuffled"] is None


def test_hit_rates_that_could_not_be_counted_recommend_nothing():
    """As of sequences that are prompts as a whole."""
    undefined = {policy: [float("nan")] * 4 for policy in CURVES}
    assert found(by_hand(curves=undefined))["cache"] is None
    partly = CURVES | {"lru": [float("nan"), 0.7, 0.9, 1.0]}
    assert found(by_hand(curves=partly), share=0.8)["cache"]["capacity"] == 2
