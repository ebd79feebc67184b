"""Each benchmark runs and prints its figures, at the smallest size: what it measures is not judged here."""

import importlib
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from moe_toy.training.process_state import process_restored
from tests.conftest import logging_restored
from tests.paths import ROOT
from tests.small_run import EIGHT_EXPERTS, SMALL
from tests.train_run import run_training

SMALLEST = {
    "moe_layer": (
        {"moe_layer": {"TOKENS": 16, "RUNS": 1, "SHAPE": ("model=nano",)}, "train_step": {"GEMM_SIZE": 64}},
        [],
        r"16 tokens, \d threads: \d+ ms, \d+% of \d+ GFLOP/s",
    ),
    "capture": (
        {"capture": {"BATCH": 1, "SEQ": 64, "RUNS": 1}},
        [],
        r"(?s)nano, 8 of 64 .+%.+\nDeepSeek-V3, 8 of 64 .+%",
    ),
    "metrics": (
        {"metrics": {"SEQ": 32, "LAYERS": 2, "SEGMENT_LENGTHS": (4, 16)}},
        [],
        r"(?s)uniform sch@4, layer .+ x\n.+SCH@16, layer, 1000 resamples +\d",
    ),
    "train_step": (
        {"train_step": {"SHAPES": {"nano": ["data.batch_size=1", "data.sequence_length=32"]}, "GEMM_SIZE": 64}},
        ["nano", "--pairs=1", "--steps=1", "--threads=1", "--bf16", "--contenders", "moe_toy", "eager", "litgpt"],
        r"(?s)litgpt is not installed, so it is left out.+nano in bf16: .+\nmoe_toy .+%.+eager experts .+x\n",
    ),
    "paper_scale": (
        {"paper_scale": {"LAYERS": 2, "EXPERTS": 8, "TOP_K": 2, "SEQ": 256, "VOCAB": 100}},
        ["--samples=1", "--threads=1"],
        r"analysis \d+ s .+\npeak memory \d",
    ),
}


@pytest.fixture
def printed(monkeypatch, capsys):
    """`printed("capture", {"capture": {"RUNS": 1}}, [])`: what a benchmark prints with such constants of modules."""
    modules = set(sys.modules)
    monkeypatch.syspath_prepend(ROOT / "benchmarks")

    def run(name: str, constants: dict[str, dict[str, object]], arguments: list[str]) -> str:
        for module, values in constants.items():
            vars(importlib.import_module(module)).update(values)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        with process_restored(), logging_restored():
            importlib.import_module(name).main()
        return capsys.readouterr().out

    yield run
    for name in set(sys.modules) - modules:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(ROOT / "benchmarks")):
            del sys.modules[name]


@pytest.mark.parametrize("name", SMALLEST)
def test_a_benchmark_prints_its_figures(printed, name):
    constants, arguments, figures = SMALLEST[name]
    assert re.search(figures, printed(name, constants, arguments))


def test_processes_side_by_side_are_told_by_what_they_reach_together(printed, monkeypatch, capsys):
    train_step = importlib.import_module("train_step")
    monkeypatch.setattr(train_step, "gemm_operations", lambda shape: 10**9)
    alone, half = (SimpleNamespace(send=int, recv=lambda t=t: (t, 0.5, 100.0)) for t in (0.3, 0.4))
    both = train_step.turn([half, half], 1)
    assert both == pytest.approx((0.2, 0.5, 200.0))
    shape = train_step.StepShape(model=None, batch_size=2, sequence_length=50)
    train_step.report("nano", shape, 2, [{"moe_toy": train_step.turn([alone], 1), "two": both}], 1e10)
    assert re.search(r"two +200 +500 +50%   200   1.50x its tokens/s", capsys.readouterr().out)


def test_where_the_time_of_a_run_goes_is_printed(printed, texts, tmp_path):
    places = [f"data.source.path={texts}", f"data.root={tmp_path / 'cache'}", f"hydra.run.dir={tmp_path / 'run'}"]
    arguments = [*SMALL, *EIGHT_EXPERTS, *places, "trainer.max_steps=2", "logger=none"]
    out = printed("training_run", {}, arguments)
    assert re.search(r"first step after +\d+\.\d s\nvalidation .+% of the run\nwhole run .+ 2 steps\n", out)


def test_decoding_with_experts_in_slow_memory_is_timed_beside_peers(printed, texts, tmp_path):
    places = [f"data.source.path={texts}", f"data.root={tmp_path / 'cache'}"]
    choices = ["trainer.max_steps=1", "logger=none", "callbacks=none", "trainer.accelerator=cpu"]
    run_dir = run_training(tmp_path / "run", *SMALL, *EIGHT_EXPERTS, *places, *choices)
    constants = {"PROMPT": 4, "DECODED": 3, "READS": 16, "PAIRS": 1, "RATIOS": (1, 4)}
    out = printed("offload", {"offload": constants}, [str(run_dir), "--samples=1"])
    assert re.search(r"disk: \d.+ of plain preadv .+\nresident: \d.+\nall experts cached: \d", out)
    assert re.search(r"ours, ratio 4: .+ management.+\nours, ratio 4, prefetch: \d", out)
    assert re.search(r"mapped, unconfined: \d.+\nmapped, dropped before every 1. token: \d.+ read per token\n", out)
    assert re.search(r"accelerate disk_offload, dropped before every 1. token: \d.+ tokens/s", out)
    confined = re.search(r"mapped, dropped before every 1. token: .+, (\S+) MB", out)[1]
    assert float(confined) > 0 == float(re.search(r"mapped, unconfined: .+, (\S+) MB", out)[1])


def test_the_benchmark_of_a_gpu_writes_its_tables_at_toy_size_on_a_cpu(tmp_path):
    """In a process of its own: the compiler cannot see through the checks of shapes that pytest adds."""
    steps = (("baseline", 2, False, True), ("share1", 2, True, False))
    code = f"import gpu; gpu.OUR_STEPS = {steps}; gpu.PEER_STEPS = (False,); gpu.main()"
    arguments = ["--device=cpu", "--tiny", "--steps=1", f"--out={tmp_path}"]
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT / "benchmarks", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["name"] for row in result["rows"][:2]] == ["moe_toy baseline", "moe_toy share1"]
    assert all(row["failed"] is None and row["tokens_per_s"] > 0 and row["peak_gib"] is None for row in result["rows"])
    assert sum(result["shares_of_a_step"].values()) == pytest.approx(1)
    assert (tmp_path / "gpu.md").read_text() in done.stdout
