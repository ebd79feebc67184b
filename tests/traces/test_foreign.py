"""Recordings of other programs, as they are found in the wild: what is read, what is left out, and what is refused."""

import gzip
import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from moe_toy.errors import UserError
from moe_toy.metrics import SRP, analyze
from moe_toy.routing import RoutingTrace, joined
from moe_toy.traces.foreign import import_traces
from moe_toy.traces.recording import Recording
from moe_toy.traces.trace_file import load_trace, save_trace

LAYERS, K, EXPERTS = 2, 2, 8


@pytest.fixture
def chosen():
    """[token, layer, k], nine tokens."""
    return np.random.default_rng(0).random((9, LAYERS, EXPERTS)).argsort(-1)[..., :K]


def json_rows(chosen, request="a"):
    return [
        {"type": "route", "req_id": request, "token_idx": t, "layer": layer, "topk_ids": chosen[t, layer].tolist()}
        for t in range(len(chosen))
        for layer in range(chosen.shape[1])
    ]


def write_json(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def only(path, **options):
    (trace,) = import_traces(path, **{"num_experts": EXPERTS} | options)
    return trace


def of(trace):
    """[token, layer, k] of the only sequence."""
    return trace.expert_ids[:, 0].permute(1, 0, 2).numpy()


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json"])
def test_json_lines(tmp_path, chosen, name):
    rows = [{"type": "meta", "model": "m"}, *json_rows(chosen)]
    np.random.default_rng(1).shuffle(rows)
    trace = only(write_json(tmp_path / name, rows))
    assert np.array_equal(of(trace), chosen)
    assert (trace.token_ids, trace.ordered, trace.padded, trace.domains) == (None, True, False, ("a",))


def test_json_lines_under_other_names_and_ranked_by_weight(tmp_path, chosen):
    rows = [
        {
            "request_id": 1,
            "position": t,
            "layer_id": layer,
            "expert_ids": chosen[t, layer, ::-1].tolist(),
            "weights": [0.1, 0.9],
        }
        for t in range(9)
        for layer in range(LAYERS)
    ]
    assert np.array_equal(of(only(write_json(tmp_path / "a.jsonl", rows))), chosen)


def test_requests_of_different_lengths_stay_apart(tmp_path, chosen):
    rows = json_rows(chosen, "a") + json_rows(chosen[:4], "b") + json_rows(chosen[5:], "c")
    long, short = import_traces(write_json(tmp_path / "a.jsonl", rows), num_experts=EXPERTS)
    assert long.expert_ids.shape == (LAYERS, 1, 9, K)
    assert np.array_equal(short.expert_ids.permute(1, 2, 0, 3), np.stack([chosen[:4], chosen[5:]]))


def test_nothing_is_counted_across_missing_tokens(tmp_path, chosen, caplog):
    rows = [row for row in json_rows(chosen) if row["token_idx"] != 4]
    trace = only(write_json(tmp_path / "a.jsonl", rows))
    assert np.array_equal(trace.expert_ids.permute(1, 2, 0, 3), np.stack([chosen[:4], chosen[5:]]))
    assert "tokens are missing in 1 places" in caplog.text


def test_a_request_that_begins_again_is_another(tmp_path, chosen):
    traces = import_traces(write_json(tmp_path / "a.jsonl", json_rows(chosen[:4]) + json_rows(chosen)), num_experts=8)
    assert [trace.sequence_length for trace in traces] == [9, 4]
    assert np.array_equal(of(traces[0]), chosen)


def test_tokens_with_fewer_experts_are_padded_and_count_for_less(tmp_path, chosen):
    rows = json_rows(chosen)
    rows[5]["topk_ids"] = rows[5]["topk_ids"][:1]
    trace = only(write_json(tmp_path / "a.jsonl", rows))
    expected = chosen.copy()
    expected[2, 1, 1] = -1
    assert trace.padded
    assert np.array_equal(of(trace), expected)
    save_trace(trace, tmp_path / "a.safetensors")
    again = load_trace(tmp_path / "a.safetensors")
    assert again.padded
    assert torch.equal(again.expert_ids.long(), trace.expert_ids)
    metric = SRP(num_layers=LAYERS, num_experts=EXPERTS, segment_length=1)
    metric.update(again)
    rates = metric.compute().expert.activation_rate
    torch.testing.assert_close(rates.sum(1) * 9, torch.tensor([18.0, 17.0], dtype=torch.float64))


def test_a_profile_run_is_left_out_with_its_number_of_tokens(tmp_path, chosen, caplog):
    profile = np.repeat(chosen[:1], 100, 0)
    rows = json_rows(profile, None) + json_rows(chosen[1:], "a")
    trace = only(write_json(tmp_path / "a.jsonl", rows))
    assert np.array_equal(of(trace), chosen[1:])
    assert "the first 100 of 108 tokens choose the same experts in every layer" in caplog.text
    with pytest.raises(UserError, match="all 100 tokens choose the same experts in every layer"):
        only(write_json(tmp_path / "b.jsonl", json_rows(profile)))


@pytest.mark.parametrize("filled", [[0, 0], [0, 1], [3, 1]], ids=str)
def test_a_layer_with_one_set_for_all_tokens_is_left_out(tmp_path, chosen, filled, caplog):
    routed = chosen.copy()
    routed[:, 1] = filled
    routed[::2, 1] = filled[::-1]  # the order does not matter
    arrays = {"routed_experts": routed, "token_ids": np.arange(9)}
    np.savez(tmp_path / "a.npz", **arrays)
    trace = only(tmp_path / "a.npz")
    assert trace.layer_ids == (0,)
    assert "layer 1 has the same experts for every token" in caplog.text
    if filled != [0, 0]:
        assert only(tmp_path / "a.npz", keep_constant_layers=True).layer_ids == (0, 1)


def test_a_top_1_layer_of_zeros_is_left_out(tmp_path, chosen):
    routed = chosen[..., :1].copy()
    routed[:, 0] = 0
    np.savez(tmp_path / "a.npz", routed_experts=routed, token_ids=np.arange(9))
    assert only(tmp_path / "a.npz").layer_ids == (1,)


def test_a_layer_that_uses_all_experts_is_none_of_these(tmp_path):
    routed = np.random.default_rng(0).random((9, 2, 3)).argsort(-1)
    np.savez(tmp_path / "a.npz", routed_experts=routed, token_ids=np.arange(9))
    assert only(tmp_path / "a.npz", num_experts=3).layer_ids == (0, 1)


@pytest.mark.parametrize("padding", ["-1", "lengths"])
def test_padded_arrays(tmp_path, chosen, padding):
    routed = np.stack([chosen, chosen[::-1]])
    lengths = {"lengths": np.array([9, 4])}
    if padding == "-1":
        routed[1, 4:] = -1
        lengths = {}
    np.savez(tmp_path / "a.npz", routed_experts=routed, token_ids=np.arange(18).reshape(2, 9), **lengths)
    long, short = import_traces(tmp_path / "a.npz", num_experts=EXPERTS)
    assert np.array_equal(of(short), chosen[::-1][:4])
    assert short.token_ids.tolist() == [[9, 10, 11, 12]]
    assert not long.padded


def test_prompts_of_arrays_survive_blocks_and_files(tmp_path, chosen):
    arrays = {"lengths": np.array([9]), "prompt_lengths": np.array([5])}
    np.savez(tmp_path / "a.npz", routed_experts=chosen, token_ids=np.arange(9), **arrays)
    trace = only(tmp_path / "a.npz", sequence_length=3)
    assert trace.prompt_lengths.tolist() == [3, 2, 0]
    save_trace(trace, tmp_path / "a.safetensors")
    assert load_trace(tmp_path / "a.safetensors").prompt_lengths.tolist() == [3, 2, 0]


def test_csv_of_expert_lists(tmp_path, chosen):
    rows = [f'{layer},{t},"{chosen[t, layer].tolist()}"' for layer in range(LAYERS) for t in range(9)]
    (tmp_path / "a.csv").write_text("\n".join(["layer,token,experts", *rows]))
    assert np.array_equal(of(only(tmp_path / "a.csv")), chosen)


def test_csv_with_the_text_of_tokens_in_no_order_of_rank(tmp_path, caplog):
    chosen = np.sort(np.random.default_rng(0).random((40, LAYERS, EXPERTS)).argsort(-1)[..., :K], -1)
    rows = [
        f'{layer},{batch},"a, b","{chosen[t, layer]}"'
        for batch, tokens in enumerate([range(25), range(25, 40)])
        for layer in range(LAYERS)
        for t in tokens
    ]
    (tmp_path / "a.csv").write_text("\n".join(["Layer,Batch,Token,Experts", *rows]))
    with caplog.at_level(logging.INFO):
        long, short = import_traces(tmp_path / "a.csv", num_experts=EXPERTS)
    assert np.array_equal(of(long), chosen[:25])
    assert np.array_equal(of(short), chosen[25:])
    assert not long.ordered
    assert "no order of rank" in caplog.text


ROUTE = """# route_trace v1
# model=m n_layer=2 n_expert=8 n_expert_used=2
# layer=0 expert_bytes=100 dense_bytes=7
# layer=1 expert_bytes=300 dense_bytes=7
turn,phase,step,layer,slot,expert,weight,residency,expert_bytes
"""


def test_csv_of_an_engine_that_streams_experts(tmp_path, chosen):
    rows = [
        f"0,{int(t >= 4)},{t},{layer},{slot},{chosen[t, layer, slot]},0.5,0,100"
        for t in range(9)
        for layer in range(LAYERS)
        for slot in range(K)
        if layer == 0 or t >= 3  # the last layer needs one token of the prompt only
    ]
    (tmp_path / "a.route.csv.gz").write_bytes(gzip.compress((ROUTE + "\n".join(rows)).encode()))
    trace = only(tmp_path / "a.route.csv.gz", num_experts=None)
    expected = chosen.copy()
    expected[:3, 1] = -1
    assert np.array_equal(of(trace), expected)
    assert (trace.num_experts, trace.expert_bytes, trace.domains) == (8, (100, 300), ("a.route",))
    assert trace.prompt_lengths.tolist() == [4]


def test_recordings_of_different_lengths_are_one_evaluation(tmp_path, chosen):
    files = []
    for name, part in (("a", chosen), ("b", chosen[:5])):
        save_trace(only(write_json(tmp_path / f"{name}.jsonl", json_rows(part))), tmp_path / f"{name}.safetensors")
        files.append(tmp_path / f"{name}.safetensors")
    recording = Recording(files)
    assert [(trace.sequence_length, trace.domain_ids.tolist()) for trace in recording] == [(9, [0]), (5, [1])]
    assert recording.domains == ["a", "b"]


def test_a_folder_may_mix_tokens_with_fewer_experts_and_without(tmp_path, chosen):
    rows = json_rows(chosen)
    rows[5]["topk_ids"] = rows[5]["topk_ids"][:1]
    traces = [
        only(write_json(tmp_path / "a.jsonl", json_rows(chosen))),
        only(write_json(tmp_path / "b.jsonl", rows)),
    ]
    assert joined(traces).padded
    joined(traces).check()
    many = replace(traces[0], expert_ids=traces[0].expert_ids.to(torch.uint16), num_experts=384)
    assert torch.equal(joined([many, replace(traces[1], num_experts=384)]).expert_ids, joined(traces).expert_ids)
    load = analyze(traces, segment_lengths=(4,), cache_stride=1)["load"]
    rates = load[load.domain.isna()].groupby("layer").activation_rate.sum()
    np.testing.assert_allclose(rates, [2, 35 / 18])


def with_row(chosen, **change):
    rows = json_rows(chosen)
    rows[7] |= change
    return rows


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"topk_ids": [1, 11]}, {}, r"line 8 names expert 11 in layer 1.*target.num_experts=12 works"),
        ({"topk_ids": [1, 1]}, {}, r"line 8 names an expert twice in layer 1: \[1, 1\]"),
        ({"topk_ids": "x"}, {}, "line 8 has experts 'x'; they must be a list of ids"),
        ({"layer": None}, {}, "line 8: 'layer' is absent; give a number from 0 under one of layer, layer_id"),
        ({"topk_weights": [1.0]}, {}, "line 8 has 2 experts and 1 weights"),
        ({}, {"num_experts": None}, "does not say how many experts a layer has; give target.num_experts, at least 8"),
        ({}, {"sequence_length": 64}, r"no sequence has target.sequence_length=64 tokens, the longest has 9"),
    ],
    ids=str,
)
def test_refusals_name_the_line_and_the_way_out(tmp_path, chosen, change, options, message):
    path = write_json(tmp_path / "a.jsonl", with_row(chosen, **change))
    with pytest.raises(UserError, match=message):
        only(path, **options)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"layer": 0', "line 1 is no JSON"),
        ("a.jsonl", '{"text": "a"}', "holds no row of routing"),
        ("a.csv", "a,b\n1,2\n", "is no recording of routing that is known"),
        ("a.csv", "layer,token,experts\n0,0,1 2 3,4\n", "line 2 has 4 cells, the header 3; put lists into quotes"),
        ("a.csv", "layer,token,experts\n0,0,x\n", "line 2: the experts are 'x'"),
        ("a.csv", 'layer,token,experts\n0,a,"1"\n0,b,"2"\n1,a,"1"\n', "layer 1 has 1 rows, layer 0 has 2"),
        ("a.csv", ROUTE + "0,0,0,0,0,1,0.5,0,100\n0,0,0,0,0,2,0.5,0,100\n", "line 7 repeats slot 0"),
    ],
    ids=range(7),
)
def test_what_is_no_recording_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        only(tmp_path / name)


def test_row_500_of_arrays_is_named(tmp_path):
    routed = np.random.default_rng(0).random((600, LAYERS, EXPERTS)).argsort(-1)[..., :K]
    routed[500, 1] = 4
    np.savez(tmp_path / "a.npz", routed_experts=routed, token_ids=np.arange(600))
    with pytest.raises(UserError, match=r"row 500 names an expert twice in layer 1: \[4, 4\]"):
        only(tmp_path / "a.npz", sequence_length=64)


@pytest.mark.parametrize("change", [{"step": 10**30}, {"step": -3}, {"layer": 2**31}, {"expert": 2**63}, {"turn": -1}])
def test_numbers_that_no_array_of_ids_holds_are_refused_with_their_line(tmp_path, change):
    columns = ("turn", "phase", "step", "layer", "slot", "expert")
    rows = [dict(zip(columns, (0, 0, step, 0, 0, step), strict=True)) for step in range(3)]
    rows[1] |= change
    text = "\n".join(",".join(map(str, row.values())) for row in rows)
    (tmp_path / "a.csv").write_text(f"{','.join(columns)}\n{text}\n")
    with pytest.raises(UserError, match=r"a.csv: line 3 is .*; its numbers must be from 0 and below 2³¹"):
        import_traces(tmp_path / "a.csv", num_experts=6)


def test_a_request_may_have_any_name_and_a_weight_any_size(tmp_path):
    weights = {"topk_ids": [1, 5], "topk_weights": [1, 10**400]}
    rows = [{"req_id": {"a": [1]}, "token_idx": step, "layer": layer} for step in range(3) for layer in (0, 1)]
    rows[0] |= weights
    for row in rows[1:]:
        row["topk_ids"] = [row["token_idx"], 3 + row["layer"]]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    [trace] = import_traces(tmp_path / "a.jsonl", num_experts=6)
    assert trace.expert_ids.shape == (2, 1, 3, 2)
    assert trace.expert_ids[0, 0, 0].tolist() == [5, 1]  # heaviest first


def phased(chosen, words=("prefill", "decode")):
    return [row | {"phase": words[row["token_idx"] >= 4]} for row in json_rows(chosen)]


@pytest.mark.parametrize("words", [("prefill", "decode"), ("Prompt", "answer"), (0, 1)])
def test_json_lines_tell_the_prompt(tmp_path, chosen, words):
    trace = only(write_json(tmp_path / "a.jsonl", phased(chosen, words)))
    assert trace.prompt_lengths.tolist() == [4]
    assert np.array_equal(of(trace), chosen)


def test_lists_in_csv_tell_the_prompt(tmp_path, chosen):
    rows = [f'{row["layer"]},{row["token_idx"]},{row["phase"]},"{row["topk_ids"]}"' for row in phased(chosen)]
    (tmp_path / "a.csv").write_text("\n".join(["layer,token,phase,experts", *rows]))
    assert only(tmp_path / "a.csv").prompt_lengths.tolist() == [4]


def test_a_prompt_after_an_answer_begins_a_request(tmp_path, chosen, caplog):
    rows = [row | {"phase": "prefill" if row["token_idx"] in (0, 1, 5, 6) else "decode"} for row in json_rows(chosen)]
    long, short = import_traces(write_json(tmp_path / "a.jsonl", rows), num_experts=EXPERTS)
    assert "1 prompts follow an answer" in caplog.text
    assert np.array_equal(of(long), chosen[:5])
    assert np.array_equal(of(short), chosen[5:])
    assert (long.prompt_lengths.tolist(), short.prompt_lengths.tolist()) == ([2], [2])


def test_a_prompt_after_an_answer_begins_a_request_in_the_csv_of_an_engine_too(tmp_path, chosen):
    rows = [
        f"{int(t not in (0, 1, 5, 6))},{t},{layer},{slot},{chosen[t, layer, slot]}"
        for t in range(9)
        for layer in range(LAYERS)
        for slot in range(K)
    ]
    (tmp_path / "a.csv").write_text("\n".join(["phase,step,layer,slot,expert", *rows]))
    long, short = import_traces(tmp_path / "a.csv", num_experts=EXPERTS)
    assert np.array_equal(of(long), chosen[:5])
    assert np.array_equal(of(short), chosen[5:])
    assert (long.prompt_lengths.tolist(), short.prompt_lengths.tolist()) == ([2], [2])


def test_answers_that_are_numbered_anew_are_refused(tmp_path, chosen):
    """They would be requests whose caches are cold."""
    rows = [row | {"token_idx": row["token_idx"] % 4} for row in phased(chosen[:8])]
    with pytest.raises(UserError, match=r"a.jsonl: line 9 begins an answer at token 0 again; number tokens on"):
        only(write_json(tmp_path / "a.jsonl", rows))


def test_an_unknown_phase_is_refused_with_its_line(tmp_path, chosen):
    rows = phased(chosen)
    rows[3]["phase"] = "warmup"
    with pytest.raises(UserError, match=r"a.jsonl: line 4 has the phase 'warmup'; it must be one of prompt, "):
        only(write_json(tmp_path / "a.jsonl", rows))
    (tmp_path / "a.csv").write_text("turn,phase,step,layer,slot,expert\n0,0,0,0,0,1\n0,3,1,0,0,2\n")
    (tmp_path / "b.csv").write_text("turn,phase,step,layer,slot,expert\n0,-1,0,0,0,1\n")
    with pytest.raises(UserError, match=r"b.csv: line 2 is of phase -1"):
        only(tmp_path / "b.csv")
    with pytest.raises(UserError, match=r"a.csv: line 3 is of phase 3"):
        only(tmp_path / "a.csv")


def test_a_recording_of_prompts_only_is_counted_as_one_of_answers(tmp_path, chosen, caplog):
    rows = [row | {"phase": "prefill"} for row in json_rows(chosen)]
    assert only(write_json(tmp_path / "a.jsonl", rows)).prompt_lengths is None
    assert "all tokens are of prompts" in caplog.text


def test_blocks_that_hold_prompts_only_are_counted_as_answers(tmp_path, chosen, caplog):
    """The one token of the answer fills no block."""
    arrays = {"lengths": np.array([9]), "prompt_lengths": np.array([8])}
    np.savez(tmp_path / "a.npz", routed_experts=chosen, **arrays)
    assert only(tmp_path / "a.npz", sequence_length=4).prompt_lengths is None
    assert "all tokens are of prompts" in caplog.text


def test_a_row_that_stands_twice_is_refused(tmp_path, chosen):
    """It was taken for a request that begins again, with half of its layers empty."""
    rows = json_rows(chosen)
    rows.insert(6, rows[4])
    with pytest.raises(UserError, match=r"a.jsonl: line 7 repeats token 2 of layer 0, but other layers do not"):
        only(write_json(tmp_path / "a.jsonl", rows))


def test_requests_that_begin_again_are_told(tmp_path, chosen, caplog):
    rows = json_rows(chosen) + json_rows(chosen[:4])
    assert len(import_traces(write_json(tmp_path / "a.jsonl", rows), num_experts=EXPERTS)) == 2
    assert "1 requests begin again" in caplog.text
    assert "mixed" not in caplog.text


def test_requests_that_ran_at_once_without_names_are_told(tmp_path, chosen, caplog):
    """Prompts one after another, then answers token by token in turn."""
    prompt, answers = json_rows(chosen[:4]), json_rows(chosen)[4 * LAYERS :]
    in_turn = [row for at in range(0, len(answers), LAYERS) for row in answers[at : at + LAYERS] * 2]
    rows = [{name: value for name, value in row.items() if name != "req_id"} for row in prompt * 2 + in_turn]
    import_traces(write_json(tmp_path / "a.jsonl", rows), num_experts=EXPERTS)
    assert "5 times a request goes back to another token than its first" in caplog.text
    assert "mixed" in caplog.text


@pytest.mark.parametrize("content", [b"", b"\n \n", gzip.compress(b"")], ids=["nothing", "blank", "gzip"])
def test_an_empty_file_is_told_so(tmp_path, content):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=r"a.jsonl is empty; record it again"):
        only(tmp_path / "a.jsonl")


def test_a_token_that_is_a_hash_is_no_comment(tmp_path):
    tokens = ["The", "#", "##ing", "# 1", "end"]
    rows = [f'{token},{layer},"[{i}, {i + 1}]"' for layer in range(2) for i, token in enumerate(tokens)]
    (tmp_path / "a.csv").write_text("\n".join(["# a note", "token,layer,experts", *rows, "# the end"]) + "\n")
    assert only(tmp_path / "a.csv").expert_ids[1, 0].tolist() == [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5]]


def test_a_nul_byte_is_told_with_its_line(tmp_path):
    (tmp_path / "a.csv").write_text('layer,token,experts\n0,0,"[1, 2]"\n0,\0001,"[1, 2]"\n')
    with pytest.raises(UserError, match=r"a.csv: line 3 holds a NUL byte"):
        only(tmp_path / "a.csv")


def test_joined_traces_keep_the_prompts_of_each(chosen):
    """A trace without prompts has prompts of no tokens."""
    ids = torch.from_numpy(chosen).permute(1, 0, 2).unsqueeze(1)
    plain = RoutingTrace(expert_ids=ids, token_ids=None, num_experts=EXPERTS, layer_ids=(0, 1))
    prompted = replace(plain, prompt_lengths=torch.tensor([3]), token_ids=torch.arange(9).view(1, 9))
    for traces, lengths in (([plain, prompted], [0, 3]), ([prompted, plain], [3, 0])):
        both = joined(traces)
        assert both.prompt_lengths.tolist() == lengths
        assert both.token_ids is None
        both.check()
