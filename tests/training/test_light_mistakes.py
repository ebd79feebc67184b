"""Mistakes that are told before Lightning is loaded, which takes seconds."""

import subprocess
import sys

from tests.paths import ROOT

HEAVY = ("lightning", "torchmetrics", "matplotlib", "pandas", "wandb", "torch._dynamo")
MISTAKES = {
    "data=files data.source.path=missing": "data.source.path=missing is not a folder",
    "data.sequence_length=4096": "exceeds model.max_seq_len",
    "init_from=missing": "init_from",
    "data.tokenizer=missing.json": "data.tokenizer=missing.json: no such file",
    "model.hidden_size=0": "model.hidden_size",
}
SCRIPT = """
import sys, train
from moe_toy.command_line.entry import run_app
place, heavy, *mistakes = sys.argv[1:]
for mistake in mistakes:
    sys.argv[1:] = [*mistake.split(), place]
    try:
        run_app(train.main, train.CONF, "train", train.OUTPUT)
    except SystemExit as stop:
        print(mistake, stop.code, *[name for name in heavy.split(",") if name in sys.modules])
"""


def test_mistakes_are_told_before_anything_heavy_is_loaded(tmp_path):
    command = [sys.executable, "-c", SCRIPT, f"hydra.run.dir={tmp_path / 'run'}", ",".join(HEAVY), *MISTAKES]
    done = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == [f"{mistake} 2" for mistake in MISTAKES]
    lines = done.stderr.splitlines()
    assert len(lines) == len(MISTAKES)
    for line, told in zip(lines, MISTAKES.values(), strict=True):
        assert told in line
