"""What a run prints: only lines that a user can act on or wants to know, each of them on this list."""

import logging
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from evaluate import main
from moe_toy.training.process_state import process_restored
from moe_toy.training.session import quieten
from tests.paths import ROOT
from tests.small_run import EIGHT_EXPERTS, SMALL

LINES = [
    r"Training a tokenizer of 300 tokens on fruit, numbers",
    r"Tokenising (fruit|numbers)",
    r"Tokenised [\d.]+ M tokens in [\d.]+ s",
    r"[\d.]+M parameters \([\d.]+M active\): 2 layers, 2 of them MoE with 8 routed experts, top 2, 0 shared",
    r"Each token is seen: fruit [\d.]+ times, numbers [\d.]+ times",
    r"the 2 steps are fewer than trainer.log_every_n_steps=10: none of them is logged, only validations",
    r"finished step 2: val/loss [\d.]+, val/bits_per_byte [\d.]+, consistency/srp@16 [\d.]+, load/cv [\d.]+, "
    r"specialization/domain [\d.]+",
    r"run directory: \S+",
    r"  (curves.png|metrics.csv|strongest_tokens.csv|config.yaml|tokenizer.json|text.json|checkpoints|wandb) +[\w`].*",
]
LOG_TIME = re.compile(r"^\d\d:\d\d:\d\d (INFO|WARNING) ")

EVALUATION_LINES = [
    r"Tokenising (fruit|numbers)",
    r"Tokenised [\d.]+ M tokens in [\d.]+ s",
    r"Read (fruit|numbers) \([12] of 2 domains\)",
    r"\S+: layer 0 has the same experts for every token, as a dense layer has in recordings: left out "
    r"\(target.keep_constant_layers=true keeps it\)",
    r"\S+: no recordings, and so passed over: README.md",
    r"\S+ is measured already",
    r"report: \S+/report.html",
]


def printed_by(command, folder):
    """Its lines, without the time."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "PYTHONWARN"))}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [LOG_TIME.sub("", line) for line in (done.stdout + done.stderr).splitlines()]


def unknown(printed, lines):
    return [line for line in printed if not any(re.fullmatch(known, line) for known in lines)]


@pytest.fixture(scope="module")
def short_run(texts, tmp_path_factory):
    """A folder with the run, and what it printed."""
    folder = tmp_path_factory.mktemp("short")
    places = [f"data.source.path={texts}", f"data.root={folder / 'cache'}", f"hydra.run.dir={folder / 'run'}"]
    steps = ["trainer.max_steps=2", "trainer.log_every_n_steps=10"]
    return folder, printed_by([ROOT / "train.py", *SMALL, *EIGHT_EXPERTS, *places, *steps], folder)


def test_every_line_of_a_short_run_is_on_the_list(short_run):
    folder, printed = short_run
    assert list((folder / "run" / "wandb").glob("offline-run-*"))
    assert len(printed) > 10
    assert unknown(printed, LINES) == []


def test_every_line_of_a_short_evaluation_is_on_the_list(short_run, command, monkeypatch, capsys):
    """Of a run, once and again, and of a recording with a dense layer, in a folder with something else."""
    folder, _ = short_run
    evaluate = [ROOT / "evaluate.py", "metrics.segment_lengths=[4,16]", "threads=1"]
    own = [f"target.path={folder / 'run'}", f"data.root={folder / 'tokens'}", "data.validation_samples=2"]
    printed = printed_by([*evaluate, *own, "out_dir=own"], folder)
    assert printed[-1] == "report: own/report.html"
    assert len(printed) >= 5
    monkeypatch.chdir(folder)
    assert command("evaluate", *evaluate[1:], *own, "out_dir=own", main=main) == 0
    again = [LOG_TIME.sub("", line) for line in capsys.readouterr().out.splitlines()]
    assert again == ["own is measured already", "report: own/report.html"]
    (folder / "traces").mkdir()
    (folder / "traces" / "README.md").touch()
    experts = np.random.default_rng(0).random((40, 3, 8)).argsort(-1)[..., :2]
    experts[:, 0] = [0, 1]
    np.savez(folder / "traces" / "a.npz", routed_experts=experts)
    recorded = printed_by(
        [*evaluate, "target=trace", "target.path=traces", "target.num_experts=8", "out_dir=recorded"], folder
    )
    assert len(recorded) == 3
    assert unknown(printed + again + recorded, EVALUATION_LINES) == []


def test_which_gpu_is_used_is_not_said_before_each_validation():
    with process_restored():
        logging.getLogger("lightning.pytorch").setLevel(logging.INFO)
        quieten()
        assert not logging.getLogger("lightning.pytorch.accelerators.cuda").isEnabledFor(logging.INFO)
