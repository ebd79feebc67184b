"""A whole sweep of two tiny arms: killed, continued, skipped, with an arm that fails."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

import train
from moe_toy.sweep.record import State, read_record
from tests.paths import ROOT
from tests.small_run import EIGHT_EXPERTS, SMALL

STEPS, BEAT = 60, 5
PATIENCE = 120


@pytest.fixture
def arguments(texts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = [f"data.source.path={texts}", f"data.root={tmp_path / 'cache'}"]
    return [*SMALL, *EIGHT_EXPERTS, *places, "logger=csv", "callbacks=none"]


@pytest.fixture
def sweep(arguments, command):
    """`sweep("sweep=smoke")`: the exit code of train.py."""

    return lambda *more: command("train", *arguments, *more, main=train.main)


def weights(arm: Path) -> dict[str, torch.Tensor]:
    return torch.load(arm / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_a_killed_sweep_goes_on_as_if_nothing_had_happened(arguments, sweep, tmp_path, monkeypatch, capfd):
    command = ["sweep=smoke", f"trainer.max_steps={STEPS}", f"trainer.val_check_interval={BEAT}"]
    baseline, nolb = (tmp_path / "outputs" / "sweeps" / "smoke" / f"arm={arm},seed=42" for arm in ("baseline", "nolb"))
    process = subprocess.Popen([sys.executable, ROOT / "train.py", *arguments, *command], env=os.environ)
    deadline = time.monotonic() + PATIENCE
    while not (baseline / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert read_record(baseline).state is State.INTERRUPTED
    assert read_record(nolb).state is State.TO_DO

    assert sweep(*command) == 0
    printed = capfd.readouterr().out
    assert "1 interrupted, 1 to do" in printed
    assert "2 done" in printed
    metrics = pd.read_csv(baseline / "metrics.csv")
    assert metrics.dropna(subset="val/loss").step.tolist() == list(range(0, STEPS + 1, BEAT))
    results = pd.read_parquet(tmp_path / "outputs" / "sweeps" / "smoke" / "results.parquet")
    assert results[["arm", "seed", "run_dir"]].to_numpy().tolist() == [
        ["baseline", 42, "arm=baseline,seed=42"],
        ["nolb", 42, "arm=nolb,seed=42"],
    ]
    assert results["val/loss"].tolist() == [
        pd.read_csv(arm / "metrics.csv")["val/loss"].dropna().iloc[-1] for arm in (baseline, nolb)
    ]

    assert sweep(*command, "sweep_name=whole", "arm=baseline") == 0
    whole = weights(tmp_path / "outputs" / "sweeps" / "whole" / "arm=baseline,seed=42")
    for name, expected in whole.items():
        torch.testing.assert_close(weights(baseline)[name], expected, rtol=0, atol=0)

    assert sweep(*command, "arm=baseline") == 0  # a part of the grid leaves the rest of the results alone
    assert len(pd.read_parquet(tmp_path / "outputs" / "sweeps" / "smoke" / "results.parquet")) == 2

    (baseline / "arm.json").unlink()  # as if killed after the last checkpoint
    assert sweep(*command) == 0
    pd.testing.assert_frame_equal(pd.read_csv(baseline / "metrics.csv"), metrics)

    monkeypatch.setattr(train, "run", lambda *_: pytest.fail("a finished arm was trained again"))
    assert sweep(*command) == 0


def test_a_failing_arm_stops_no_other_and_shows_in_the_exit_code(sweep, tmp_path, capfd):
    command = ["sweep=grid", "sweep_name=bad", "trainer.profiler=nonsense,null", "trainer.max_steps=1"]
    assert sweep(*command) == 1
    assert "1 done, 1 failed" in capfd.readouterr().out
    directory = tmp_path / "outputs" / "sweeps" / "bad"
    assert "Trainer" in read_record(directory / "seed=42,trainer.profiler=nonsense").error
    assert read_record(directory / "seed=42,trainer.profiler=null").state is State.DONE
    assert (directory / "report.html").exists()


@pytest.mark.parametrize(
    ("launcher", "plugin"),
    [("joblib", "hydra_joblib_launcher"), ("submitit_local", "hydra_submitit_launcher")],
    ids=["joblib", "submitit_local"],
)
def test_launchers_run_arms_in_processes_of_their_own(sweep, tmp_path, monkeypatch, launcher, plugin):
    pytest.importorskip(f"hydra_plugins.{plugin}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    options = ["arm=nolb", "trainer.max_steps=1", "data.num_workers=1", f"hydra/launcher={launcher}"]
    assert sweep("sweep=smoke", *options) == 0
    arm = tmp_path / "outputs" / "sweeps" / "smoke" / "arm=nolb,seed=42"
    assert read_record(arm).state is State.DONE
    assert (arm / "checkpoints" / "last.ckpt").exists()
