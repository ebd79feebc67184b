"""Mistakes that are told before Lightning and torch's compiler are loaded, which takes seconds."""

import subprocess
import sys

import pytest

from tests.paths import ROOT

HEAVY = ("lightning", "torchmetrics", "matplotlib", "pandas", "wandb", "torch._dynamo")
SCRIPT = """
import sys, train
from moe_toy.command_line.entry import run_app
try:
    run_app(train.main, train.CONF, "train", train.OUTPUT)
finally:
    print("loaded:", *[name for name in sys.argv[0].split(",") if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["data=files", "data.source.path=missing"], "data.source.path=missing is not a folder"),
        (["data.sequence_length=4096"], "exceeds model.max_seq_len"),
        (["init_from=missing"], "init_from"),
        (["data.tokenizer=missing.json"], "data.tokenizer=missing.json: no such file"),
        (["model.hidden_size=0"], "model.hidden_size"),
    ],
    ids=["text", "lengths", "weights", "tokenizer", "number"],
)
def test_a_mistake_is_told_before_anything_heavy_is_loaded(arguments, told, tmp_path):
    script = SCRIPT.replace("sys.argv[0]", repr(",".join(HEAVY)))
    command = [sys.executable, "-c", script, *arguments, f"hydra.run.dir={tmp_path / 'run'}"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert done.stdout.strip() == "loaded:"
