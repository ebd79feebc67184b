"""Shared test set-up: two threads at most, no network, no telemetry; text for whole runs."""

import os
import sys

import pytest

from moe_toy.command_line import run_checked
from tests.paths import CONF
from tests.small_run import write_texts

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """A folder of two domains."""
    folder = tmp_path_factory.mktemp("texts")
    write_texts(folder)
    return folder


def never(cfg=None):
    raise AssertionError("a job went on although its config is wrong")


@pytest.fixture
def refusal(monkeypatch, tmp_path, capsys):
    """`refusal("train", stages, "moe.top_k=9")`: the one line that a command answers with, having changed nothing."""
    monkeypatch.chdir(tmp_path)

    def run(command, stages, *arguments: str) -> str:
        before = sorted(str(path) for path in tmp_path.rglob("*"))
        monkeypatch.setattr(sys, "argv", [f"{command}.py", *arguments])
        with pytest.raises(SystemExit) as stop:
            run_checked(never, stages, CONF, command)
        captured = capsys.readouterr()
        assert stop.value.code == 2
        assert captured.out == ""
        assert captured.err.startswith("error: ")
        assert captured.err.count("\n") == 1
        assert sorted(str(path) for path in tmp_path.rglob("*")) == before
        return captured.err

    return run
