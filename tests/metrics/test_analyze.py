"""The tables of `analyze`: golden values through saved trace files, streams, domains by name."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from moe_toy.errors import UserError
from moe_toy.metrics import analyze, cache_hits, pearson
from moe_toy.traces.trace_file import load_trace, save_trace

MANIFEST = json.loads((Path(__file__).parents[1] / "golden" / "manifest.json").read_text())
SUITE = MANIFEST["suite"]
SUITE_CASES = [case["name"] for case in MANIFEST["cases"] if not case["name"].startswith("boot")]

LEVELS = {  # golden name: level, axes before the segment length is put first
    "mg": ("model", []),
    "lg": ("layer", ["layer"]),
    "eg": ("expert", ["layer", "expert"]),
    "md": ("model", ["domain"]),
    "ld": ("layer", ["layer", "domain"]),
    "ed": ("expert", ["layer", "expert", "domain"]),
}
COLUMNS = {"act_r": "activation_rate", "best_f1": "srp", "best_m": "router_size", "best_t": "threshold"}


@pytest.fixture(scope="session")
def tables(golden, tmp_path_factory):
    """Tables of the golden trace after a round trip through a file."""
    path = tmp_path_factory.mktemp("traces") / "trace.safetensors"
    save_trace(golden.trace, path)
    stride = 16 if golden.name.startswith("boot") else 1  # golden caches there are of every 16th sequence
    return analyze(load_trace(path), cache_stride=stride)


def test_srp_equals_the_published_code(golden, tables):
    table = tables["srp"]
    assert table.segment_length.unique().tolist() == golden.srp_lengths
    for name, (level, axes) in LEVELS.items():
        by_domain = "domain" in axes
        rows = table[(table.level == level) & (table.domain.notna() == by_domain)]
        rows = rows.sort_values(["segment_length", *axes])
        for column, ours in COLUMNS.items():
            expected = golden[f"exp_srp_{name}_{column}"].flatten()
            np.testing.assert_allclose(rows[ours], expected, rtol=1e-5, atol=1e-6, err_msg=f"{name} {column}")


@pytest.mark.parametrize("scope", ["layer", "model"])
def test_hit_rates_equal_the_published_code(golden, tables, scope):
    table = tables["cache"]
    rows = table[(table.scope == scope) & (table.order != "layer") & table.domain.notna()]
    sch, real = (golden[f"exp_{kind}_{scope}"].mean(-3, dtype=np.float64) for kind in ("sch", "chr"))
    order = ["layer", "domain", "segment_length", "capacity"]
    got = rows[rows.policy == "sch"].sort_values(order).hit_rate
    np.testing.assert_allclose(got, sch.flatten(), rtol=0, atol=1e-6)
    for variant, policy in enumerate(["lru", "lfu", "belady"]):
        got = rows[rows.policy == policy].sort_values(order).hit_rate
        np.testing.assert_allclose(got, real[..., variant, :].flatten(), rtol=0, atol=1e-6)


def test_specialization_equals_the_published_code(golden, tables):
    table = tables["specialization"].sort_values(["layer", "expert"])
    domain = table[table.kind == "domain"].value
    np.testing.assert_allclose(domain, golden["exp_dspec_cv"].flatten(), rtol=0, atol=1e-5)
    for column, kind in enumerate(["input", "predicted", "target"]):
        expected = golden["exp_vspec"][..., column].flatten()
        np.testing.assert_allclose(table[table.kind == kind].value, expected, rtol=0, atol=1e-5)


def test_load_is_the_share_of_tokens(golden, tables):
    table = tables["load"]
    top_k = golden.trace.expert_ids.shape[3]
    assert table[table.domain.isna()].groupby("layer").activation_rate.sum().to_numpy() == pytest.approx(top_k)
    share = (golden.trace.expert_ids[0] == 1).any(-1).double().mean().item()
    row = table[table.domain.isna() & (table.layer == 0) & (table.expert == 1)]
    assert row.activation_rate.item() == pytest.approx(share)


def assert_equal_tables(left, right):
    for name, table in left.items():
        keys = [column for column in table.columns if table[column].dtype != "float64"]
        both = [t.sort_values(keys).reset_index(drop=True) for t in (table, right[name])]
        pd.testing.assert_frame_equal(*both, check_exact=True)


def test_a_stream_equals_one_trace(make_trace):
    trace = replace(make_trace(batch=12), domains=("code", "web", "books"))
    stream = (trace.select(part) for part in torch.arange(12).split(5))
    options = {"segment_lengths": (4, 7), "cache_stride": 2, "intervals": True, "min_token_count": 3}
    assert_equal_tables(analyze(stream, **options), analyze(trace, **options))


def test_domains_meet_by_name(make_trace):
    """One file per domain, each with a list of names of its own."""
    trace = replace(make_trace(batch=12, domains=2), domains=("code", "web"))
    parts = []
    for d, name in enumerate(trace.domains):
        part = trace.select((trace.domain_ids == d).nonzero()[:, 0])
        parts.append(part.with_domains(torch.zeros_like(part.domain_ids), (name,)))
    assert_equal_tables(analyze(parts, cache_stride=1), analyze(trace, cache_stride=1))


def test_without_domains_everything_is_pooled(make_trace):
    tables = analyze(replace(make_trace(), domain_ids=None))
    assert all(table.domain.isna().all() for table in tables.values() if "domain" in table)
    assert tables["specialization"].query("kind == 'domain'").value.isna().all()


def test_unnamed_domains_go_by_number(make_trace):
    assert set(analyze(make_trace(domains=2))["srp"].domain.dropna()) == {0, 1}


def test_optional_vocabulary_kinds(make_trace):
    trace = replace(make_trace(), predicted_ids=None)
    assert set(analyze(trace)["specialization"].kind) == {"domain", "input", "target"}
    assert set(analyze(replace(trace, vocab_size=None))["specialization"].kind) == {"domain"}


def test_the_strongest_tokens_of_an_expert_are_those_it_leads_most(trace_of):
    """Expert 1 leads token 0 always; token 7 goes to expert 0 twice of three times."""
    trace = replace(trace_of([(1,), (1,), (0,), (0,), (1,)], num_experts=2), vocab_size=10)
    trace = replace(trace, token_ids=torch.tensor([[0, 0, 7, 7, 7]]))
    tokens = analyze(trace, segment_lengths=(2,), min_token_count=2)["tokens"]
    rows = tokens[tokens.kind == "input"][["expert", "rank", "token_id", "strength"]].to_numpy().tolist()
    assert rows == [[0, 0, 7, pytest.approx(2 / 3)], [1, 0, 0, 1.0]]


def test_intervals_hold_the_score_at_model_and_layer_level(golden_named):
    tables = analyze(golden_named("boot_e8k2").trace, segment_lengths=(16,), cache_stride=16, intervals=True)
    srp = tables["srp"]
    reported = srp[srp.level != "expert"]
    assert ((reported.ci_low <= reported.srp) & (reported.srp <= reported.ci_high)).all()
    assert srp[srp.level == "expert"].ci_low.isna().all()
    cache = tables["cache"]
    assert (cache.ci_low <= cache.hit_rate + 1e-12).all()


def test_rows_in_layer_order_say_what_an_engine_gets(make_trace):
    trace = make_trace(domains=1)
    cache = analyze(trace, segment_lengths=(4,), cache_stride=1)["cache"]
    for policy, length in (("lru", None), ("sch", 4)):
        options = {"policy": policy, "scope": "model", "order": "layer", "cold": "miss", "segment_length": length or 1}
        hits, requests = cache_hits(trace.expert_ids, trace.num_experts, **options)
        rows = cache[(cache.policy == policy) & (cache.order == "layer") & cache.domain.isna()]
        np.testing.assert_allclose(rows.hit_rate, hits.sum(0)[0] / requests.sum())
    assert cache[cache.scope == "layer"].order.isna().all()


def test_long_segments_are_left_out_of_srp(make_trace):
    assert analyze(make_trace(seq=10), segment_lengths=(4, 16))["srp"].segment_length.unique().tolist() == [4]


@pytest.mark.parametrize(
    ("traces", "message"),
    [
        (lambda trace: [], "there is no trace to analyze"),
        (lambda trace: [trace, replace(trace, vocab_size=30)], "trace 1 is of another model than trace 0"),
        (lambda trace: [trace, replace(trace, layer_ids=(2, 3))], "trace 1 is of another model than trace 0"),
        (
            lambda trace: [trace, replace(trace, expert_ids=torch.zeros_like(trace.expert_ids))],
            "trace 1: 'expert_ids' names expert 0 twice at layer 0, batch 0, seq 0",
        ),
    ],
    ids=["none", "another model", "other layers", "damaged"],
)
def test_unusable_traces_are_refused(make_trace, traces, message):
    with pytest.raises(UserError, match=message):
        analyze(traces(make_trace()))


def test_segment_length_below_one_is_refused(make_trace):
    with pytest.raises(UserError, match="segment_length must be at least 1 token, not 0"):
        analyze(make_trace(), segment_lengths=(4, 0))


def at_ratio(table, ratio):
    return table[(table.cache_ratio - ratio).abs() < 1e-9]


def test_correlations_over_the_golden_models_equal_the_published_code(golden_named):
    """SRP of (layer, domain) against SCH of the layer's cache, and SCH against real caches, over all golden cases."""
    expected, cases = SUITE, [analyze(golden_named(name).trace, cache_stride=1) for name in SUITE_CASES]
    for m, by_ratio in expected["srp_sch_corr"].items():
        for ratio, correlation in by_ratio.items():
            pairs = []
            for tables in cases:
                srp, cache = tables["srp"], tables["cache"]
                srp = srp[(srp.level == "layer") & srp.domain.notna() & (srp.segment_length == int(m))]
                cache = at_ratio(cache[(cache.scope == "layer") & cache.domain.notna()], float(ratio))
                cache = cache[(cache.policy == "sch") & (cache.segment_length == int(m))]
                pairs.append(srp.merge(cache, on=["layer", "domain"]))
            rows = pd.concat(pairs)
            assert len(rows) == expected["srp_sch_rows"][m][ratio]
            got = pearson(torch.tensor(rows.srp.to_numpy()), torch.tensor(rows.hit_rate.to_numpy()))
            assert got == pytest.approx(correlation, abs=1e-4)
    for m, by_policy in expected["sch_chr_corr"].items():
        for policy, correlation in by_policy.items():
            pairs = []
            for tables in cases:
                cache = tables["cache"]
                cache = cache[(cache.order == "token") & cache.domain.notna()]
                sch = cache[(cache.policy == "sch") & (cache.segment_length == int(m))]
                real = cache[cache.policy == policy.lower()]
                pairs.append(sch.merge(real, on=["domain", "capacity"]))
            rows = pd.concat(pairs)
            got = pearson(torch.tensor(rows.hit_rate_x.to_numpy()), torch.tensor(rows.hit_rate_y.to_numpy()))
            assert got == pytest.approx(correlation, abs=1e-4)


def test_threads_are_as_many_afterwards_as_before(golden):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        analyze(golden.trace, segment_lengths=[4], intervals=False)
        with ThreadPoolExecutor(1) as later:
            assert (torch.get_num_threads(), later.submit(torch.get_num_threads).result()) == (2, 2)
    finally:
        torch.set_num_threads(before)


class Elsewhere(torch.Tensor):
    """A tensor on a device that can only say what it is and be copied to the host."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.Tensor.cpu:
            return args[0].as_subclass(torch.Tensor)
        assert function.__name__ == "__get__", f"{function} ran on the device"
        return super().__torch_function__(function, types, args, kwargs)


def test_a_trace_on_another_device_is_measured_as_on_the_host(golden):
    trace = golden.trace
    fields = {name: x.as_subclass(Elsewhere) for name, x in vars(trace).items() if isinstance(x, torch.Tensor)}
    tables = analyze(trace), analyze(replace(trace, **fields))
    for name, table in tables[0].items():
        pd.testing.assert_frame_equal(table, tables[1][name])
