"""Each benchmark runs and prints its figures, at the smallest size: what it measures is not judged here."""

import json
import re
import subprocess
import sys

import pytest

from tests.paths import ROOT
from tests.small_run import EIGHT_EXPERTS, SMALL

SMALLEST = {
    "moe_layer": ({"TOKENS": 16, "RUNS": 1}, [], r"16 tokens, \d threads: \d+ ms, \d+% of \d+ GFLOP/s"),
    "capture": ({"BATCH": 1, "RUNS": 1}, [], r"(?s)nano, 8 of 64 .+%.+\nDeepSeek-V3, 8 of 64 .+%"),
    "metrics": (
        {"SEQ": 32, "SEGMENT_LENGTHS": (4, 16)},
        [],
        r"(?s)uniform sch@4, layer .+ x\n.+SCH@16, layer, 1000 resamples +\d",
    ),
    "train_step": (
        {},
        ["nano", "--pairs=1", "--steps=1", "--threads=1"],
        r"(?s)moe_toy .+%.+\(grouped_mm\) .+x\n.+eager experts .+x\n",
    ),
    "paper_scale": ({}, ["--samples=1", "--threads=1"], r"analysis \d+ s .+\npeak memory \d"),
}


def printed(name: str, constants: dict[str, object], arguments: list[str]) -> str:
    code = f"import {name}; vars({name}).update({constants}); {name}.main()"
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT / "benchmarks", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_benchmark_of_a_gpu_writes_its_tables_at_toy_size_on_a_cpu(tmp_path):
    steps = (("baseline", 2, False, True), ("share1", 2, True, False))
    out = printed("gpu", {"OUR_STEPS": steps}, ["--device=cpu", "--tiny", "--steps=1", f"--out={tmp_path}"])
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["name"] for row in result["rows"][:2]] == ["moe_toy baseline", "moe_toy share1"]
    assert all(row["failed"] is None and row["tokens_per_s"] > 0 and row["peak_gib"] is None for row in result["rows"])
    assert sum(result["shares_of_a_step"].values()) == pytest.approx(1)
    assert (tmp_path / "gpu.md").read_text() in out


@pytest.mark.parametrize("name", SMALLEST)
def test_a_benchmark_prints_its_figures(name):
    constants, arguments, figures = SMALLEST[name]
    assert re.search(figures, printed(name, constants, arguments))


def test_where_the_time_of_a_run_goes_is_printed(texts, tmp_path):
    places = [f"data.source.path={texts}", f"data.root={tmp_path / 'cache'}", f"hydra.run.dir={tmp_path / 'run'}"]
    arguments = [*SMALL, *EIGHT_EXPERTS, *places, "trainer.max_steps=2", "logger=none"]
    out = printed("training_run", {}, arguments)
    assert re.search(r"first step after +\d+\.\d s\nvalidation .+% of the run\nwhole run .+ 2 steps\n", out)
