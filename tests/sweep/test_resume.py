"""What is used of an interrupted run: the newest checkpoint that can be read, and the metrics up to there."""

import os

import pandas as pd
import pytest
import torch

from moe_toy.sweep.resume import earlier_metrics, last_good_checkpoint


@pytest.fixture
def run_dir(tmp_path):
    """A run that was interrupted in step 5, its last checkpoint at step 4."""
    (tmp_path / "checkpoints").mkdir()
    for age, (name, step) in enumerate({"best": 2, "last": 4}.items()):
        path = tmp_path / "checkpoints" / f"{name}.ckpt"
        torch.save({"state_dict": {}, "global_step": step}, path)
        os.utime(path, (1000 + age, 1000 + age))
    pd.DataFrame({"step": [2, 4, 5], "loss": [3.0, 2.0, 1.9]}).to_csv(tmp_path / "metrics.csv", index=False)
    return tmp_path


def test_the_newest_checkpoint_is_taken(run_dir):
    assert last_good_checkpoint(run_dir).name == "last.ckpt"


def test_a_damaged_checkpoint_is_passed_over(run_dir):
    (run_dir / "checkpoints" / "last.ckpt").write_bytes(b"PK\x03\x04 half")
    assert last_good_checkpoint(run_dir).name == "best.ckpt"


def test_without_checkpoints_a_run_starts_anew(tmp_path):
    assert last_good_checkpoint(tmp_path) is None


def test_metrics_up_to_the_checkpoint_come_back_once_even_after_two_interruptions(run_dir):
    last = run_dir / "checkpoints" / "last.ckpt"
    interrupted = earlier_metrics(run_dir, last)
    interrupted.__enter__()  # and never left
    pd.DataFrame({"step": [5], "loss": [1.8]}).to_csv(run_dir / "metrics.csv", index=False)
    with earlier_metrics(run_dir, last):
        pd.DataFrame({"step": [5, 6], "loss": [1.7, 1.6]}).to_csv(run_dir / "metrics.csv", index=False)
    metrics = pd.read_csv(run_dir / "metrics.csv")
    assert metrics.step.tolist() == [2, 4, 5, 6]
    assert metrics.loss.tolist() == [3.0, 2.0, 1.7, 1.6]
