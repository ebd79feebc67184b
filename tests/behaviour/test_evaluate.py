"""Whole evaluations by `evaluate.py` on small text: what they leave behind, how they go on, what they refuse."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pandas as pd
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from moe_toy import evaluate as notebook_evaluate
from moe_toy.data.tokenizer import Tokenizer
from moe_toy.errors import UserError
from moe_toy.evaluation import command
from moe_toy.evaluation.output_folder import OutputFolder
from moe_toy.evaluation.settings import MetricSettings, Options
from moe_toy.evaluation.sweep import FinishedSweep
from moe_toy.results import Results
from moe_toy.routing import RoutingTrace
from moe_toy.traces.trace_file import load_trace, save_trace
from tests.evaluate_run import QUICK, run_evaluation
from tests.evaluation.conftest import BOTH_SIDES, DECODERS, NUM_EXPERTS, tiny_model
from tests.metrics.conftest import load_golden
from tests.paths import CONF, ROOT
from tests.reliability.reading import write_routed_npy, write_routed_npz
from tests.small_run import EIGHT_EXPERTS, SMALL, WORDS
from tests.train_run import run_training

TABLES = {"srp", "cache", "specialization", "load", "tokens", "balance", "nulls", "correlations", "loss", "text"}
TABLES |= {"experts", "positions", "coactivation"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def data(texts, cache):
    return ["data=files", f"data.source.path={texts}", f"data.root={cache}", "data.source.validation_fraction=0.5"]


@pytest.fixture(scope="module")
def run_dir(data, tmp_path_factory):
    """A run of train.py, with a bias on the selection that its checkpoint has to bring along."""
    run_dir = tmp_path_factory.mktemp("run")
    choices = ["balance=loss_free", "balance.rate=0.5", "logger=none", "callbacks=none", "trainer.max_steps=3"]
    return run_training(run_dir, *SMALL, *data, *EIGHT_EXPERTS, *choices)


@pytest.fixture(scope="module")
def tokenizer_file(cache, run_dir):
    (path,) = cache.glob("tokenizers/*.json")
    return path


def run(out_dir, *overrides: str) -> Results:
    return run_evaluation(out_dir, *QUICK, *overrides)


BRIEF = ["data.validation_samples=2", "data.validation_length=32", "metrics.min_token_count=2"]
SHORT = ["data.validation_samples=3", "data.validation_length=64", "metrics.min_token_count=2"]


def test_a_run_directory_becomes_a_report(run_dir, data, tmp_path):
    results = run(tmp_path / "out", f"target.path={run_dir}", *data, *SHORT)
    assert set(results.tables) == TABLES
    assert results.summary["target"] == "checkpoint"
    assert results.summary["domains"] == ["fruit", "numbers"]
    assert results.summary["samples_per_domain"] == 3
    assert results.summary["sequence_length"] == 64
    assert results.summary["layer_ids"] == [0, 1]
    assert results.summary["active_parameters"] < results.summary["total_parameters"]
    assert results.summary["loss"] == pytest.approx(results.tables["loss"].loss.mean())
    assert results.tables["loss"].bits_per_byte.notna().all()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".lock",
        "config.yaml",
        "evaluation.json",
        "report.html",
        "summary.json",
        "tables",
    ]
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert config["target"]["path"] == str(run_dir)


def test_a_run_is_measured_on_its_own_text(run_dir, data, tmp_path):
    """Source, split and length from its config.yaml; the report and the summary say so."""
    own = run(tmp_path / "own", f"target.path={run_dir}", "data.validation_samples=3", "metrics.min_token_count=2")
    assert own.summary["domains"] == ["fruit", "numbers"]
    assert own.summary["sequence_length"] == 64
    recorded = json.loads((run_dir / "text.json").read_text())["fingerprint"]
    assert own.summary["text"]["fingerprint"] == recorded
    assert own.summary["text"]["words"].endswith("the run's own text")
    page = (tmp_path / "own" / "report.html").read_text()
    assert "the run&#x27;s own text" in page
    named = run(tmp_path / "named", f"target.path={run_dir}", *data, *SHORT)
    for name, table in own.tables.items():
        pd.testing.assert_frame_equal(named.tables[name], table)


def test_the_notebook_reads_the_text_of_a_run_too(run_dir):
    tables = notebook_evaluate(run_dir, samples=3, segment_lengths=(4, 16), intervals=False, min_token_count=2)
    assert tables["loss"].domain.tolist() == ["fruit", "numbers"]


@pytest.fixture
def moved(run_dir, texts, data, tmp_path):
    """`moved(move)`: a copy of the run whose text `move` has changed or moved."""

    def make(change):
        own = shutil.copytree(texts, tmp_path / "texts")
        copy = shutil.copytree(run_dir, tmp_path / "run")
        config = yaml.safe_load((copy / "config.yaml").read_text())
        config["data"]["source"]["path"] = str(own)
        (copy / "config.yaml").write_text(yaml.safe_dump(config))
        change(own)
        return copy

    return make


def test_own_text_that_has_moved_is_told_with_the_way_to_it(complain, moved):
    copy = moved(lambda texts: shutil.move(texts, texts.with_name("elsewhere")))
    line = complain(f"target.path={copy}", "out_dir=out")
    assert "which cannot be read any more" in line
    assert "data=files data.source.path=FOLDER data.source.validation_fraction=0.5" in line


def test_own_text_that_has_changed_is_told_with_the_way_out(moved, tmp_path):
    copy = moved(
        lambda texts: (texts / "fruit.jsonl").write_text("".join(f'{{"text": "fig {i}"}}\n' for i in range(300)))
    )
    with pytest.raises(UserError, match=r"is not the text any more that .* was trained on .* data=files"):
        run(tmp_path / "out", f"target.path={copy}")
    assert not (tmp_path / "out").exists()
    (copy / "text.json").unlink()  # as a run of before leaves it
    changes = ["data.validation_samples=2", "data.validation_length=32", "metrics.min_token_count=2"]
    words = run(tmp_path / "out", f"target.path={copy}", *changes).summary["text"]["words"]
    assert words.endswith("the run recorded no fingerprint of it")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"_target_": "os.system", "command": "ls"}, "no source of text of ours, given 'os.system'"),
        ({"_target_": "moe_toy.data.domains.TextSource"}, "no source of text of ours"),
        ({"_target_": "moe_toy.data.domains.FileDomains", "pth": "x"}, "data.source.pth: no such key"),
        ({"_target_": "moe_toy.data.domains.FileDomains", "path": "x"}, "data.source does not fit FileDomains"),
        (["a"], "no source of text of ours, given None"),
    ],
    ids=str,
)
def test_a_config_that_names_a_foreign_source_is_refused(complain, run_dir, tmp_path, source, expected):
    copy = shutil.copytree(run_dir, tmp_path / "run")
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["data"]["source"] = source
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    assert expected in complain(f"target.path={copy}", "out_dir=out")


def test_another_tokenizer_than_the_models_own_is_refused(complain, run_dir, tmp_path):
    from moe_toy.data.tokenizer import train as train_tokenizer

    train_tokenizer([" ".join(map(str, range(3000)))], vocab_size=300).backend.save(str(tmp_path / "other.json"))
    line = complain(f"target.path={run_dir}", f"data.tokenizer={tmp_path}/other.json", "out_dir=out")
    assert "is another tokenizer than" in line


def test_evaluations_of_different_text_are_not_compared(complain, run_dir, data, texts, tmp_path):
    fruit = [*data, *SHORT, "data.domains=[fruit]"]
    run(tmp_path / "both", f"target.path={run_dir}", *data, *SHORT, "name=both")
    run(tmp_path / "fruit", f"target.path={run_dir}", *fruit, "name=fruit only")
    paths = ["target=runs", f"target.paths=[{tmp_path}/both,{tmp_path}/fruit]"]
    line = complain(*paths, f"out_dir={tmp_path}/out")
    assert "both was measured on" in line
    assert "fruit only on" in line
    assert "allow_different_text=true" in line
    assert set(run(tmp_path / "out", *paths, "allow_different_text=true").summary["models"]) == {"both", "fruit only"}


def test_runs_and_checkpoints_are_told_from_evaluations(complain, run_dir):
    for path in (run_dir, run_dir / "checkpoints" / "last.ckpt"):
        line = complain("target=runs", f"target.paths=[{path}]", "out_dir=out")
        assert f"{path} is a run of train.py, not an evaluation of one; measure it first: evaluate.py" in line


def test_a_sweep_over_different_text_is_not_judged(tmp_path):
    for arm in ("a", "b"):
        (tmp_path / arm).mkdir()
        (tmp_path / arm / "text.json").write_text(json.dumps({"fingerprint": arm, "domains": []}))
    (tmp_path / "results.parquet").touch()
    with pytest.raises(UserError, match=r"a was measured on a text \(a\), b on a text \(b\)"):
        FinishedSweep(path=tmp_path, options=Options()).check()
    FinishedSweep(path=tmp_path, options=Options(allow_different_text=True)).check()


def test_tables_hold_the_text_and_the_experts_of_its_tokens(run_dir, data, tmp_path):
    tables = run(tmp_path / "out", f"target.path={run_dir}", *data, *SHORT, "metrics.text_tokens=20").tables
    text = tables["text"]
    assert len(text) == 2 * 20 * 2 * 2  # domains, tokens, layers, experts
    first = text[(text.layer == 0) & (text["rank"] == 0) & (text.domain == "fruit")].sort_values("position")
    words = set("".join(first.token).split())
    assert len(words & set(WORDS["fruit"])) > 2
    assert {"input", "predicted", "target"} >= set(tables["tokens"].kind)
    assert tables["balance"].groupby("scope").size().to_dict() == {"corpus": 6, "segment": 6, "sequence": 6}
    assert set(tables["nulls"].metric) == {"srp", "sch"}


def test_the_bias_of_the_run_counts(run_dir, data, tokenizer_file, tmp_path):
    """Without its config.yaml the checkpoint still brings its bias; with a bias of zero the routing is another."""
    checkpoint = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["state_dict"]["model.balancer.bias"].abs().max() > 0
    srp = {}
    for name, factor in {"with": 1.0, "without": 0.0}.items():
        checkpoint["state_dict"]["model.balancer.bias"] *= factor
        torch.save(checkpoint, tmp_path / f"{name}.ckpt")
        overrides = [f"target.path={tmp_path / name}.ckpt", *data, *SHORT, f"data.tokenizer={tokenizer_file}"]
        srp[name] = run(tmp_path / name, *overrides).tables["srp"]
    whole = run(tmp_path / "out", f"target.path={run_dir}", *data, *SHORT).tables["srp"]
    pd.testing.assert_frame_equal(whole, srp["with"])
    assert not whole.srp.equals(srp["without"].srp)


def test_an_interrupted_evaluation_goes_on_where_it_stopped(run_dir, data, tmp_path, monkeypatch):
    from moe_toy.evaluation.checkpoint import LoadedCheckpoint

    observe, calls = LoadedCheckpoint.observe, []

    def counting(self, token_ids):
        calls.append(len(token_ids))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return observe(self, token_ids)

    overrides = [f"target.path={run_dir}", *data, *SHORT]
    whole = run(tmp_path / "whole", *overrides)
    monkeypatch.setattr(LoadedCheckpoint, "observe", counting)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", *overrides)
    assert [path.name for path in (tmp_path / "out" / "traces").iterdir()] == ["fruit.safetensors"]
    resumed = run(tmp_path / "out", *overrides)
    assert calls == [3, 3, 3]  # the first domain was read once
    assert resumed.summary == whole.summary
    for name, table in whole.tables.items():
        pd.testing.assert_frame_equal(resumed.tables[name], table)
    run(tmp_path / "out", *overrides, "bandwidth_gbps=10", "expert_bytes=1e6", "compute_ms=1")
    assert calls == [3, 3, 3]  # what is measured stays measured


def test_a_kept_trace_gives_the_same_tables(run_dir, data, tmp_path):
    first = run(tmp_path / "a", f"target.path={run_dir}", *data, *SHORT, "save_trace=true")
    trace = load_trace(tmp_path / "a" / "trace.safetensors")
    assert trace.domains == ("fruit", "numbers")
    again = run(
        tmp_path / "b", "target=trace", f"target.path={tmp_path}/a/trace.safetensors", "metrics.min_token_count=2"
    )
    assert set(first.tables) - set(again.tables) == {"text"}  # a trace knows ids only
    for name in ("srp", "cache", "specialization", "load", "balance", "nulls", "correlations", "loss"):
        pd.testing.assert_frame_equal(again.tables[name], first.tables[name])
    assert again.summary["total_parameters"] == first.summary["total_parameters"]


def test_a_golden_trace_becomes_a_report(tmp_path):
    golden = load_golden("domain_e64k8")
    save_trace(golden.trace, tmp_path / "golden.safetensors")
    results = run(tmp_path / "out", "target=trace", f"target.path={tmp_path}/golden.safetensors")
    srp = results.tables["srp"]
    model = srp[(srp.level == "model") & srp.domain.isna() & (srp.segment_length == 16)]
    expected = golden["exp_srp_mg_best_f1"][golden.srp_lengths.index(16)]
    assert model.srp.item() == pytest.approx(float(expected), abs=1e-6)
    assert results.summary["name"] == "golden"
    assert results.summary["loss"] is None
    assert (tmp_path / "out" / "report.html").exists()


def test_a_folder_of_traces_has_a_domain_for_each_file(tmp_path):
    trace = replace(load_golden("sticky_e16k4").trace, domain_ids=None, domains=())
    (tmp_path / "traces").mkdir()
    for name, part in {"books": slice(0, 2), "code": slice(2, 4)}.items():
        save_trace(trace.select(part), tmp_path / "traces" / f"{name}.safetensors")
    results = run(tmp_path / "out", "target=trace", f"target.path={tmp_path}/traces")
    assert results.summary["domains"] == ["books", "code"]
    assert (tmp_path / "traces" / "books.safetensors").exists()  # only our own copies are removed


def test_a_folder_of_routed_experts_has_a_domain_for_each_file(tmp_path):
    """Whatever dots their names have."""
    (tmp_path / "routed").mkdir()
    for name in ("model-0.5.npz", "model-0.7.npz"):
        write_routed_npz(tmp_path / "routed" / name)
    write_routed_npy(tmp_path / "routed" / "model-0.7.b.npy")
    target = ["target=trace", f"target.path={tmp_path}/routed", "target.num_experts=6", "target.sequence_length=4"]
    assert run(tmp_path / "out", *target).summary["domains"] == ["model-0.5", "model-0.7.b", "model-0.7"]


def test_files_of_one_name_are_refused(complain, tmp_path):
    for name in ("a.npz", "a.npy"):
        (tmp_path / name).touch()
    assert "a.npy and a.npz would both be called a" in complain("target=trace", "target.path=.")


@pytest.mark.parametrize("family", DECODERS)
def test_a_pretrained_model_of_every_family_becomes_a_report(family, data, tokenizer_file, tmp_path):
    tiny_model(family).save_pretrained(tmp_path / "tiny")
    (tmp_path / "tiny" / "tokenizer.json").write_bytes(tokenizer_file.read_bytes())
    results = run(tmp_path / "out", "target=huggingface", f"target.path={tmp_path}/tiny", *data, *BRIEF)
    assert set(results.tables) == TABLES
    assert results.summary["num_experts"] == NUM_EXPERTS
    assert results.summary["layer_ids"] == list(DECODERS[family][2])
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("family", BOTH_SIDES)
def test_each_side_of_an_encoder_decoder_model_becomes_a_report(family, part, data, tokenizer_file, tmp_path):
    tokenizer = Tokenizer.load(tokenizer_file).backend
    if family == "switch_transformers":
        tokenizer.add_special_tokens([f"<extra_id_{i}>" for i in range(100)])
    tiny_model(family).save_pretrained(tmp_path / "tiny")
    tokenizer.save(str(tmp_path / "tiny" / "tokenizer.json"))
    target = ["target=huggingface", f"target.path={tmp_path}/tiny", f"target.part={part}"]
    results = run(tmp_path / "out", *target, *data, *BRIEF)
    masks = family == "switch_transformers" and part == "decoder"
    assert set(results.tables) == TABLES - {"tokens", "loss"} - ({"positions"} if masks else set())
    assert set(results.tables["specialization"].kind) == {"domain"}
    assert results.summary["sequence_length"] == (5 if masks else 32)  # the start, two masks and what they hide


def test_a_target_is_built_once_per_command(tmp_path, monkeypatch):
    made, build = [], command.build
    monkeypatch.setattr(command, "build", lambda cfg: made.append(cfg.target.path) or build(cfg))
    save_trace(load_golden("sticky_e16k4").trace, tmp_path / "a.safetensors")
    for out_dir in ("once", "again"):
        run(tmp_path / out_dir, "target=trace", f"target.path={tmp_path}/a.safetensors")
    assert made == [f"{tmp_path}/a.safetensors"] * 2  # one for each command


def test_another_config_is_another_target(tmp_path):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        configs = [compose("evaluate", ["target=trace", f"target.path={name}"]) for name in ("a", "b", "a")]
    first, second, again = (command.target_of(cfg).path.name for cfg in configs)
    assert (first, second, again) == ("a", "b", "a")
    assert command.target_of(configs[0]) is command.target_of(configs[2])


def test_defaults_in_yaml_and_python_agree():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("evaluate")
    assert instantiate(cfg.metrics, _convert_="all") == MetricSettings()


@pytest.fixture
def complain(refusal):
    """`complain("target.path=x")`: the line that evaluate.py answers with."""
    return partial(refusal, "evaluate")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["target.path=nowhere"], "target.path: no such file, given nowhere"),
        (["target=trace"], "target.path is not set"),
        (["target=trace", "target.path=nowhere"], "target.path=nowhere does not exist"),
        (["target=runs"], "target.paths is empty"),
        (["target=runs", "target.paths=[nowhere]"], "nowhere holds no finished evaluation"),
        (["target=huggingface", "target.path=./nowhere"], "target.path=./nowhere: no such model"),
        (["target=huggingface", "target.path=x", "target.dtype=fp8"], "target.dtype=fp8 is no type"),
        (["target=huggingface", "target.path=x", "target.router_modules=gate"], "go together; give both or none"),
        (["metrics.cold=warm"], "metrics.cold: input should be 'hit', 'miss' or 'exclude', given 'warm'"),
        (["metrics.segment_lengths=[]"], "metrics.segment_lengths"),
        (["bandwidth_gbps=16"], "bandwidth_gbps, expert_bytes, compute_ms go together"),
        (["target.pth=x"], "did you mean target.path?"),
        (["target.path=x", "target.batch_size=abc"], "target.batch_size: input should be a valid integer, given 'abc'"),
        (["target.path=x", "target.batch_size=0"], "target.batch_size: input should be greater than 0, given 0"),
        (["target.path=x", "target.device=foo"], "target.device=foo is no device of this machine"),
        (["target.path=x", "target.device=meta"], "target.device=meta is no device of this machine"),
        (["target=huggingface", "target.path=x", "target.batch_size=-1"], "target.batch_size: input should be greater"),
        (["target=huggingface", "target.path=x", "target.top_k=0"], "target.top_k: input should be greater than 0"),
        (["target=huggingface", "target.path=x", "target.device_map=foo"], "target.device_map=foo is no device"),
        (["target=huggingface", "target.path=x", "target.part=middle"], "target.part: input should be 'encoder'"),
        (["target=trace", "target.path=x", "target.sequence_length=0"], "target.sequence_length: input should be"),
        (["target=trace", "target.path=x", "target.num_experts=many"], "target.num_experts: input should be"),
        (["target=runs", "target.paths=abc"], "target.paths: "),
        (["threads=0"], "threads: input should be greater than 0, given 0"),
        (["seed=abc"], "seed: input should be a valid integer"),
        (["save_trace=perhaps"], "save_trace: input should be a valid boolean"),
        (["bandwidth_gbps=fast"], "bandwidth_gbps: input should be a valid number, given 'fast'"),
        (["bandwidth_gbps=-1"], "bandwidth_gbps: input should be greater than 0"),
        (["out_dir=null"], "out_dir: input should be a valid string"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_told_in_one_line(complain, arguments, expected):
    assert expected in complain(*arguments)


def test_text_that_the_model_cannot_read_is_refused(complain, run_dir, data, tmp_path):
    assert "no segment length fits the sequences, of at most 3 tokens" in complain(
        f"target.path={run_dir}", *data, "data.validation_length=3", "out_dir=out"
    )
    assert "is longer than the 1024 tokens that the model can read" in complain(
        f"target.path={run_dir}", *data, "data.validation_length=2000"
    )
    from moe_toy.data.tokenizer import train as train_tokenizer

    train_tokenizer([" ".join(map(str, range(3000)))], vocab_size=400).backend.save(str(tmp_path / "large.json"))
    line = complain(f"target.path={run_dir}", *data, *SHORT, f"data.tokenizer={tmp_path}/large.json")
    assert "the tokenizer has 400 tokens, but the model knows 300" in line


def metadata(path):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.metadata()


def test_a_trace_of_another_version_is_refused(complain, tmp_path):
    from safetensors.torch import save_file

    save_file({"expert_ids": torch.zeros(1)}, tmp_path / "a.safetensors", {"format": "moe_toy-routing-trace/9"})
    assert "'moe_toy-routing-trace/9', but this version reads" in complain("target=trace", "target.path=a.safetensors")


def test_a_damaged_trace_is_refused(complain, tmp_path):
    """As a whole, before there is a folder for its results; beside it lies one that is fine."""
    from safetensors.torch import load_file, save_file

    (tmp_path / "traces").mkdir()
    path = tmp_path / "traces" / "b.safetensors"
    trace = load_golden("uniform_e8k2").trace
    for name in ("a", "b"):
        save_trace(trace, tmp_path / "traces" / f"{name}.safetensors")
    save_file(load_file(path) | {"token_ids": torch.full_like(trace.token_ids, -1)}, path, metadata(path))
    assert "b.safetensors: 'token_ids' holds -1" in complain("target=trace", "target.path=traces", "out_dir=out")


@pytest.mark.parametrize("empty", [{"layer": 0}, {"batch": 0}, {"seq": 0}], ids=str)
def test_an_empty_trace_is_refused(complain, tmp_path, empty):
    layers, batch, seq = ({"layer": 2, "batch": 3, "seq": 8} | empty).values()
    ids = torch.arange(2).expand(layers, batch, seq, 2)
    tokens = torch.zeros(batch, seq, dtype=torch.int64)
    trace = RoutingTrace(expert_ids=ids, token_ids=tokens, num_experts=4, layer_ids=tuple(range(layers)))
    save_trace(trace.with_domains(torch.zeros(batch, dtype=torch.int64)), tmp_path / "a.safetensors")
    line = complain("target=trace", "target.path=a.safetensors", "out_dir=out")
    assert f"a.safetensors holds {batch} sequences of {seq} tokens in {layers} layers" in line


def test_damaged_routed_experts_are_refused(complain, tmp_path):
    (tmp_path / "a.npz").write_bytes(b"no archive")
    line = complain("target=trace", "target.path=a.npz", "target.num_experts=8", "out_dir=out")
    assert "a.npz cannot be read" in line


def test_text_with_a_wrong_number_is_refused(complain, run_dir, data):
    line = complain(f"target.path={run_dir}", *data, "data.validation_length=long")
    assert "data.validation_length: input should be a valid integer, given 'long'" in line


def test_a_config_that_names_foreign_code_is_refused(complain, run_dir, data, tmp_path):
    copy = shutil.copytree(run_dir, tmp_path / "run")
    config = yaml.safe_load((copy / "config.yaml").read_text())
    (copy / "config.yaml").write_text(yaml.safe_dump(config | {"balance": {"_target_": "os.system", "command": "ls"}}))
    assert "no balancing scheme of ours, given 'os.system'" in complain(f"target.path={copy}", *data, "out_dir=out")


def test_what_only_measuring_finds_is_told_in_one_line_too(tmp_path):
    trace = load_golden("uniform_e8k2").trace
    save_trace(replace(trace, num_experts=2**16, vocab_size=None, predicted_ids=None), tmp_path / "many.safetensors")
    done = subprocess.run(
        [sys.executable, ROOT / "evaluate.py", "target=trace", "target.path=many.safetensors", "out_dir=out"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: many.safetensors: counts of ")
    assert done.stderr.count("\n") == 1


def test_results_without_a_summary_are_not_taken_for_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(OutputFolder, "write_identity", lambda *_: None)
    save_trace(load_golden("uniform_e8k2").trace, tmp_path / "a.safetensors")
    (tmp_path / "summary.json").write_text("{}")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("evaluate", ["target=trace", f"target.path={tmp_path}/a.safetensors", f"out_dir={tmp_path}"])
    with pytest.raises(UserError, match=r"summary.json has no name, .* evaluate again, to another out_dir"):
        command.target_of(cfg).run(tmp_path)


@pytest.mark.parametrize("summary", ["{}", "[]"])
def test_runs_without_a_summary_are_refused(complain, tmp_path, summary):
    (tmp_path / "summary.json").write_text(summary)
    assert f"{tmp_path}/summary.json" in complain("target=runs", f"target.paths=[{tmp_path}]", "out_dir=out")


def test_a_second_evaluation_is_refused_while_the_first_writes(tmp_path):
    save_trace(load_golden("uniform_e8k2").trace, tmp_path / "a.safetensors")
    with OutputFolder(tmp_path / "out").lock(), pytest.raises(UserError, match="another process is evaluating into"):
        run(tmp_path / "out", "target=trace", f"target.path={tmp_path}/a.safetensors")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def test_a_folder_with_results_of_another_target_is_refused(complain, tmp_path):
    save_trace(load_golden("uniform_e8k2").trace, tmp_path / "a.safetensors")
    save_trace(load_golden("onetop_e8k1").trace, tmp_path / "b.safetensors")
    run(tmp_path / "out", "target=trace", f"target.path={tmp_path}/a.safetensors")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    line = complain("target=trace", f"target.path={tmp_path}/b.safetensors", f"out_dir={tmp_path}/out")
    assert "holds the results of another evaluation" in line
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary


def test_finished_evaluations_are_compared_in_a_folder_of_their_own(complain, tmp_path):
    for name in ("sticky_e16k4", "domain_e64k8"):
        save_trace(load_golden(name).trace, tmp_path / f"{name}.safetensors")
        run(tmp_path / name, "target=trace", f"target.path={tmp_path}/{name}.safetensors")
    paths = f"target.paths=[{tmp_path}/sticky_e16k4,{tmp_path}/domain_e64k8]"
    assert "holds the results of another" in complain("target=runs", paths, f"out_dir={tmp_path}/sticky_e16k4")
    run_evaluation(tmp_path / "both", "target=runs", paths)
    assert (tmp_path / "both" / "report.html").exists()


def test_another_trace_of_equal_name_size_and_time_is_another(complain, tmp_path):
    """What was measured stays measured only for equal content."""
    path = tmp_path / "a.safetensors"
    trace = load_golden("uniform_e8k2").trace
    save_trace(trace, path)
    before = path.stat()
    run(tmp_path / "out", "target=trace", f"target.path={path}")
    save_trace(replace(trace, expert_ids=7 - trace.expert_ids.int()), path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    line = complain("target=trace", f"target.path={path}", *QUICK, f"out_dir={tmp_path}/out")
    assert "holds the results of another evaluation (target.files." in line


def test_another_checkpoint_of_equal_name_size_and_time_is_another(run_dir, data, tokenizer_file, tmp_path):
    path = tmp_path / "a.ckpt"
    checkpoint = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    overrides = [f"target.path={path}", *data, *BRIEF, f"data.tokenizer={tokenizer_file}"]
    torch.save(checkpoint, path)
    before = path.stat()
    run(tmp_path / "out", *overrides)
    checkpoint["state_dict"]["model.balancer.bias"] *= 0
    torch.save(checkpoint, path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    with pytest.raises(UserError, match=r"holds the results of another evaluation \(target.digest "):
        run(tmp_path / "out", *overrides)


def test_text_in_the_tokens_of_another_tokenizer_is_another(tokenizer_file, tmp_path):
    """The passages of the report are in the tokenizer's words."""
    trace = load_golden("uniform_e8k2").trace
    save_trace(
        replace(trace, token_ids=trace.token_ids % 300, predicted_ids=None, vocab_size=None), tmp_path / "a.safetensors"
    )
    target = ["target=trace", f"target.path={tmp_path}/a.safetensors"]
    tokenizer = Tokenizer.load(tokenizer_file).backend
    tokenizer.add_tokens(["zebra"])
    tokenizer.save(str(tmp_path / "other.json"))
    run(tmp_path / "out", *target, f"target.tokenizer={tokenizer_file}")
    with pytest.raises(UserError, match=r"another evaluation \(target.tokenizer "):
        run(tmp_path / "out", *target, f"target.tokenizer={tmp_path}/other.json")
