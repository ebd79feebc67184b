"""`evaluate.py offload=...` on a small run: what it leaves behind, how it goes on, what it refuses."""

import errno
import os
import signal
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir

import evaluate
from moe_toy.errors import UserError
from moe_toy.evaluation import command, offloading
from moe_toy.offload import measure, store
from moe_toy.offload.measure import Measurement
from moe_toy.offload.readers import FileReader
from moe_toy.results import Results
from moe_toy.routing import RoutingTrace
from moe_toy.traces.trace_file import save_trace
from tests import evaluate_run
from tests.evaluate_run import run_evaluation
from tests.paths import CONF
from tests.small_run import EIGHT_EXPERTS, SMALL
from tests.train_run import run_training

QUICK = [*evaluate_run.QUICK, "metrics.min_token_count=2", "data.validation_samples=2"]
FEW = ["offload.cache_ratios=[1,2]", "offload.policies=[lru]", "offload.prompt_length=8", "offload.decode_length=6"]


@pytest.fixture(scope="module")
def run_dir(texts, tmp_path_factory):
    run_dir, cache = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("cache")
    data = ["data=files", f"data.source.path={texts}", f"data.root={cache}", "data.source.validation_fraction=0.5"]
    choices = ["balance=loss_free", "logger=none", "callbacks=none", "trainer.max_steps=2", "trainer.accelerator=cpu"]
    return run_training(run_dir, *SMALL, *data, *EIGHT_EXPERTS, *choices)


def run(out_dir, *overrides: str) -> Results:
    return run_evaluation(out_dir, *QUICK, *overrides)


@pytest.mark.parametrize("store", ["disk", "page_cache", "host"])
def test_decoding_becomes_tables_and_a_section(run_dir, tmp_path, store):
    results = run(tmp_path / "out", f"target.path={run_dir}", f"offload={store}", *FEW)
    assert results.summary["offload"]["store"] == store
    table = results.tables["offload"]
    assert table[table.domain.isna()].policy.tolist() == ["resident", "lru", "lru"]
    assert set(table.domain.dropna()) == {"fruit", "numbers"}
    assert (tmp_path / "out" / "tables" / "offload_steps.csv").is_file()
    assert '<section id="measured">' in (tmp_path / "out" / "report.html").read_text()
    assert not (tmp_path / "out" / offloading.FOLDER).exists()
    again = run(tmp_path / "out", f"target.path={run_dir}", f"offload={store}", *FEW)
    pd.testing.assert_frame_equal(again.tables["offload"], table)


def test_other_numbers_are_those_of_an_evaluation_without_and_the_folder_keeps_them(run_dir, tmp_path):
    plain = run(tmp_path / "plain", f"target.path={run_dir}")
    decoded = run(tmp_path / "decoded", f"target.path={run_dir}", "offload=host", *FEW)
    assert set(decoded.tables) - set(plain.tables) == {"offload", "offload_steps"}
    for name, table in plain.tables.items():
        pd.testing.assert_frame_equal(decoded.tables[name], table)
    assert "offload" not in plain.summary
    with pytest.raises(UserError, match="holds the results of another evaluation"):
        run(tmp_path / "decoded", f"target.path={run_dir}", "offload=host", *FEW, "offload.dtype=bfloat16")


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["offload.cache_ratios=[0.1]"], "offload.cache_ratios: 0.1 holds 0 experts, but a layer needs 2 at once"),
        (["offload.cache_ratios=[]"], "offload.cache_ratios"),
        (["offload.cache_ratios=[-1]"], "offload.cache_ratios"),
        (["offload.cache_bytes=[100]"], "offload.cache_bytes: 100 holds 0 experts, but a layer needs 2 at once"),
        (["offload.cache_bytes=[4 apples]"], "offload.cache_bytes"),
        (["offload.cache_bytes=[-1]"], "offload.cache_bytes"),
        (["offload.prefetch=all"], "offload.prefetch"),
        (["offload.prefetch=next_layer", "offload.cache_ratios=[0.6]"], "2 at once and as many for offload.prefetch"),
        (["offload.policies=[fifo]"], "offload.policies"),
        (["offload.threads=0"], "offload.threads"),
        (["offload.dtype=float16"], "offload.dtype"),
        (["offload.delay_ms=-1"], "offload.delay_ms"),
        (["+offload.speed=1"], "offload.speed"),
        (["offload.prompt_length=64"], "is 70, but data.validation_length is 64"),
        (["offload.samples_per_domain=3"], "offload.samples_per_domain is 3, but data.validation_samples 2"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_input_is_refused_in_one_line(refusal, run_dir, overrides, complaint):
    line = refusal("evaluate", f"target.path={run_dir}", *QUICK, "offload=disk", *FEW, *overrides)
    assert complaint in line


def test_a_gpu_is_refused_and_not_chosen(run_dir, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        target = command.build(compose("evaluate", [f"target.path={run_dir}", *QUICK, "offload=disk", *FEW]))
    assert target.device == "cpu"
    asked = target._saved()[0], "cuda", target.reading.samples(target)
    with pytest.raises(UserError, match=r"not on target.device=cuda; give target.device=cpu"):
        target.offloading.check(*asked)
    offloading.Offloading(replace(target.offloading.settings, store="host")).check(*asked)


def test_a_limit_is_decoded_with_and_lowers_what_is_missed(run_dir, tmp_path):
    """A prior so strong that whatever was chosen once stays chosen: nothing is missed after the prompt."""
    asked = [f"target.path={run_dir}", "offload=host", *FEW, "offload.cache_ratios=[2]"]
    free, limited = (run(tmp_path / f"{prior}", *asked, f"target.cache_prior={prior}") for prior in (0.0, 1000.0))
    missed = [
        results.tables["offload"].query("policy == 'lru' and domain.isna()").reads_per_token.item()
        for results in (free, limited)
    ]
    assert missed[0] > missed[1] == 0


def test_targets_that_decode_nothing_are_refused(refusal):
    assert "offload decodes with a model" in refusal("evaluate", "target=runs", "target.paths=[x]", "offload=disk")


def test_recorded_routing_is_replayed(tmp_path):
    torch.manual_seed(0)
    ids = torch.rand(2, 3, 40, 8).topk(2).indices
    trace = RoutingTrace(expert_ids=ids, token_ids=None, num_experts=8, layer_ids=(0, 1), expert_bytes=(4096, 9000))
    trace_file = tmp_path / "chat.safetensors"
    save_trace(trace, trace_file)
    results = run(tmp_path / "out", "target=trace", f"target.path={trace_file}", "offload=disk", *FEW)
    table = results.tables["offload"]
    assert set(table.domain.dropna()) == {"chat"}
    assert table[table.domain.isna()].policy.tolist() == ["lru", "lru"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "replayed token by token without computing" in page
    assert not (tmp_path / "out" / offloading.FOLDER).exists()


def test_a_replay_without_sizes_is_refused(refusal, tmp_path):
    ids = torch.rand(2, 3, 40, 8).topk(2).indices
    trace = RoutingTrace(expert_ids=ids, token_ids=None, num_experts=8, layer_ids=(0, 1))
    save_trace(trace, tmp_path / "chat.safetensors")
    overrides = [*QUICK[:2], "target=trace", f"target.path={tmp_path / 'chat.safetensors'}", "offload=disk", *FEW]
    assert "give expert_bytes" in refusal("evaluate", *overrides)
    sized = [*overrides, "bandwidth_gbps=1", "compute_ms=1", "expert_bytes=1e12"]
    assert "too large for this machine" in refusal("evaluate", *sized)
    assert "recorded routing has none" in refusal("evaluate", *overrides, "offload.prefetch=next_layer")


def test_a_file_system_without_direct_reads_is_refused(refusal, run_dir, monkeypatch):
    monkeypatch.setattr(offloading, "_reads_directly", lambda folder: False)
    assert "offload=page_cache" in refusal("evaluate", f"target.path={run_dir}", *QUICK, "offload=disk", *FEW)


def test_a_disk_without_room_is_refused(refusal, run_dir, monkeypatch):
    monkeypatch.setattr(offloading.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    assert "make room" in refusal("evaluate", f"target.path={run_dir}", *QUICK, "offload=disk", *FEW)


def test_an_error_of_a_reader_ends_in_one_line(command, run_dir, tmp_path, monkeypatch, capsys):
    def fail(self, row, buffer):
        raise UserError(f"cannot read expert row {row}")

    monkeypatch.setattr(FileReader, "read", fail)
    overrides = [f"target.path={run_dir}", *QUICK, "offload=disk", *FEW, f"out_dir={tmp_path / 'out'}"]
    assert command("evaluate", *overrides, main=evaluate.main) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: cannot read expert row")
    assert error.count("\n") == 1


def test_a_full_disk_ends_in_one_line_and_leaves_no_store(command, run_dir, tmp_path, monkeypatch, capsys):
    def full(model, layout):
        yield from islice(rows_of(model, layout), 3)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    rows_of = store.rows_of
    monkeypatch.setattr(store, "rows_of", full)
    overrides = [f"target.path={run_dir}", *QUICK, "offload=disk", *FEW, f"out_dir={tmp_path / 'out'}"]
    assert command("evaluate", *overrides, main=evaluate.main) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: cannot write")
    assert "No space left" in error
    assert error.count("\n") == 1
    assert list((tmp_path / "out" / offloading.FOLDER).iterdir()) == []


@pytest.fixture
def heard_ctrl_c():
    """A shell that started the tests in the background may have had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard_ctrl_c")
def test_a_measurement_that_ctrl_c_stopped_goes_on_from_its_store(command, run_dir, tmp_path, monkeypatch):
    run_arm, done = Measurement._run_arm, []

    def interrupted(measurement, arm, number):
        if len(done) == 3:  # on the way back
            signal.raise_signal(signal.SIGINT)
        done.append(arm)
        return run_arm(measurement, arm, number)

    arguments = [f"target.path={run_dir}", *QUICK, "offload=disk", *FEW]
    with monkeypatch.context() as patch:
        patch.setattr(Measurement, "_run_arm", interrupted)
        overrides = [*arguments, f"out_dir={tmp_path / 'out'}"]
        assert command("evaluate", *overrides, main=evaluate.main) == 128 + signal.SIGINT
    parts = {path.name for path in (tmp_path / "out" / offloading.FOLDER).iterdir()}
    assert parts == {"experts.bin", "0000-0.parquet"}
    monkeypatch.setattr(measure, "write_store", None)  # the store is there
    assert "offload" in run(tmp_path / "out", *arguments).tables
