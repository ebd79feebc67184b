"""Folders of recordings as people have them: what is read together, what is refused, and when."""

import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest

from moe_toy.errors import UserError
from moe_toy.evaluation.settings import MetricSettings, Options
from moe_toy.evaluation.trace_files import TraceTarget
from moe_toy.traces.trace_file import load_trace, save_trace
from tests.metrics.conftest import load_golden

METRICS = MetricSettings(segment_lengths=(4, 16), cache_stride=1, intervals=False, min_token_count=2)


def chosen(layers=2, k=2):
    return np.random.default_rng(0).random((40, layers, 8)).argsort(-1)[..., :k]


def target(path, **options):
    return TraceTarget(
        path=path,
        num_experts=8,
        sequence_length=options.pop("sequence_length", None),
        tokenizer=None,
        options=Options(**{"metrics": METRICS} | options),
    )


def write(path, experts=None, **arrays):
    path.parent.mkdir(exist_ok=True)
    np.savez(path, routed_experts=chosen() if experts is None else experts, **arrays)
    return path


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "traces" / "b.npz", token_ids=np.arange(40), lengths=np.array([30, 10]))
    return tmp_path / "traces"


def evaluated(folder, tmp_path, **options):
    made = target(folder, **options)
    made.check()
    made.prepare(tmp_path / "out")
    return made.run(tmp_path / "out")


@pytest.mark.parametrize("name", ["a.npz", "c.npz"])
def test_where_one_file_knows_no_token_ids_all_go_without(folder, tmp_path, name):
    write(folder / name)
    results = evaluated(folder, tmp_path)
    assert sorted(results.summary["domains"]) == sorted(["b", name[0]])
    assert "Token ids are unknown" in results.summary["notes"][0]
    assert "tokens" not in results.tables


@pytest.mark.parametrize("name", ["a.npz", "c.npz"])
def test_prompts_of_some_files_count_and_are_said(folder, tmp_path, name):
    plain = evaluated(folder, tmp_path).tables["cache"]
    write(folder / name, token_ids=np.arange(40), prompt_lengths=np.array([35]))
    made = target(folder)
    made.check()
    made.prepare(tmp_path / "both")
    results = made.run(tmp_path / "both")
    assert "Hit rates are those of the answers; the prompts warm the caches." in results.summary["notes"]
    own = results.tables["cache"][lambda table: table.domain == "b"].hit_rate.to_numpy()
    assert np.array_equal(own, plain[plain.domain == "b"].hit_rate.to_numpy(), equal_nan=True)


@pytest.mark.parametrize(
    ("experts", "message"),
    [
        (chosen(k=3), r"c.npz and .*b.npz are not of one model: experts for each token are 3 in the one and 2"),
        (chosen(layers=3), r"MoE layers are \[0, 1, 2\] in the one and \[0, 1\] in the other; evaluate them apart"),
    ],
)
def test_files_of_different_models_are_refused_before_a_folder_is_made(folder, experts, message):
    write(folder / "c.npz", experts, token_ids=np.arange(40))
    with pytest.raises(UserError, match=message):
        target(folder).check()


def test_other_layers_of_equal_number_are_another_model(folder):
    """They were counted as one, layer 0 with layer 0 and 1 with 7."""
    rows = [
        {"token_idx": t, "layer": layer, "topk_ids": ids.tolist()}
        for t, of_token in enumerate(chosen())
        for layer, ids in zip((0, 7), of_token, strict=True)
    ]
    (folder / "c.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(UserError, match=r"MoE layers are \[0, 7\] in the one and \[0, 1\] in the other"):
        target(folder).check()


def test_a_link_to_nothing_and_a_circle_of_links_are_refused(folder):
    os.symlink(folder / "gone", folder / "c.npz")
    with pytest.raises(UserError, match=r"c.npz is a link to nothing"):
        target(folder).check()
    os.symlink("loop", folder / "loop")
    with pytest.raises(UserError, match=r"loop does not exist|Too many levels"):
        target(folder / "loop").check()


def test_a_name_that_is_not_utf8_is_refused(folder):
    os.rename(folder / "b.npz", os.fsencode(folder) + b"/\xff.npz")
    with pytest.raises(UserError, match=r"the name of .* is not UTF-8; rename it"):
        target(folder).check()


def test_long_names_and_capitals_are_read(folder, tmp_path, caplog):
    caplog.set_level("INFO")
    write(folder / f"{'x' * 245}.npz", token_ids=np.arange(40))
    os.rename(folder / "b.npz", folder / "B.NPZ")
    (folder / "README.md").write_text("what these are")
    (folder / "more").mkdir()
    assert evaluated(folder, tmp_path).summary["domains"] == ["B", "x" * 245]
    assert "no recordings, and so passed over: README.md, more" in caplog.text


def test_sequences_of_different_lengths_are_not_kept_as_one_trace(folder):
    with pytest.raises(
        UserError, match=r"sequences of 10 to 30 tokens do not fit into one trace; set save_trace=false"
    ):
        target(folder, save_trace=True).check()
    target(folder, save_trace=True, sequence_length=10).check()


def test_sequences_shorter_than_every_segment_are_refused_before_a_folder_is_made(folder):
    metrics = replace(METRICS, segment_lengths=(31, 64))
    with pytest.raises(UserError, match=r"no segment length fits the sequences, of at most 30 tokens; give a shorter"):
        target(folder, metrics=metrics).check()
    target(folder, metrics=replace(METRICS, segment_lengths=(30,))).check()


def test_the_summary_counts_sequences_of_different_lengths(folder, tmp_path):
    write(folder / "c.npz", token_ids=np.arange(40))
    summary = evaluated(folder, tmp_path).summary
    assert (summary["num_sequences"], summary["shortest_sequence"], summary["sequence_length"]) == (3, 10, 40)


def test_what_there_is_to_say_of_a_file_is_said_once(tmp_path, caplog):
    experts = chosen(layers=3)
    experts[:, 0] = [1, 2]
    write(tmp_path / "a.npz", experts)
    evaluated(tmp_path / "a.npz", tmp_path)
    assert caplog.text.count("layer 0 has the same experts for every token") == 1


def test_traces_of_ours_beside_files_without_token_ids_are_refused(folder):
    trace = load_golden("uniform_e8k2").trace
    part = replace(trace, predicted_ids=None, vocab_size=None, domain_ids=None, domains=())
    layers = len(part.layer_ids)
    save_trace(replace(part, layer_ids=tuple(range(layers))), folder / "ours.safetensors")
    (folder / "b.npz").unlink()
    write(folder / "b.npz", chosen(layers=layers))
    with pytest.raises(UserError, match=r"b.npz does not know the ids of its tokens, .* evaluate them apart"):
        target(folder).check()


def test_the_loss_of_a_domain_in_two_files_is_that_of_both(tmp_path):
    """It was that of the file that came last."""
    trace, folder = load_golden("sticky_e16k4").trace, tmp_path / "traces"
    folder.mkdir()
    parts = {"a": (slice(0, 3), 1.0, 0.5), "b": (slice(3, 4), 3.0, 1.0), "c": (slice(4, 8), 2.0, None)}
    for name, (sequences, loss, bits) in parts.items():
        domain = "domain1" if name == "c" else "domain0"
        source = {"loss": {domain: loss}, "bits_per_byte": {domain: bits}}
        save_trace(replace(trace.select(sequences), source=source), folder / f"{name}.safetensors")
    made = TraceTarget(
        path=folder,
        num_experts=None,
        sequence_length=None,
        tokenizer=None,
        options=Options(metrics=METRICS, save_trace=True),
    )
    made.prepare(tmp_path / "out")
    results = made.run(tmp_path / "out")
    found = results.tables["loss"].set_index("domain")
    assert found.loss.to_dict() == {"domain0": 1.5, "domain1": 2.0}
    assert found.bits_per_byte.to_dict() == pytest.approx({"domain0": 6 / 9, "domain1": math.nan}, nan_ok=True)
    assert results.summary["loss"] == 1.75
    kept = load_trace(tmp_path / "out" / "trace.safetensors").source
    assert kept["loss"] == {"domain0": 1.5, "domain1": 2.0}
    assert kept["bits_per_byte"] == {"domain0": pytest.approx(6 / 9), "domain1": None}


def test_token_ids_beside_a_recording_belong_to_it(tmp_path):
    """With other ids there the folder held the results of before, and they were taken for those of now."""
    np.save(tmp_path / "a.npy", chosen())
    np.save(tmp_path / "a.tokens.npy", np.arange(40))
    evaluated(tmp_path / "a.npy", tmp_path)
    target(tmp_path / "a.npy").prepare(tmp_path / "out")
    np.save(tmp_path / "a.tokens.npy", np.zeros(40, int))
    with pytest.raises(UserError, match=r"holds the results of another evaluation \(target.files..*a.tokens.npy"):
        target(tmp_path / "a.npy").prepare(tmp_path / "out")


def test_traces_with_and_without_ranks_are_refused_before_a_folder_is_made(tmp_path):
    """Half way through the files it was said of "the trace" that it does not name leaders."""
    trace, folder = load_golden("sticky_e16k4").trace, tmp_path / "traces"
    folder.mkdir()
    save_trace(trace, folder / "a.safetensors")
    save_trace(replace(trace, ordered=False), folder / "b.safetensors")
    with pytest.raises(UserError, match=r"b.safetensors and .*: ranks of experts are unknown in the one and known in"):
        target(folder).check()


def test_what_an_earlier_version_counted_is_counted_anew(folder, tmp_path):
    """Its folder was 'measured already', whatever had been mended since."""
    results = evaluated(folder, tmp_path)
    other = replace(results, tables=results.tables | {"load": results.tables["load"].assign(activation_rate=0.5)})
    other.save(tmp_path / "out")
    assert evaluated(folder, tmp_path).tables["load"].activation_rate.eq(0.5).all()
    before = {key: value for key, value in results.summary.items() if key != "version"}
    replace(other, summary=before).save(tmp_path / "out")
    assert not evaluated(folder, tmp_path).tables["load"].activation_rate.eq(0.5).all()
