"""What can go wrong with a run directory is one clear line, and what is there stays as it is."""

import errno
import os
import signal
import sys
import time

import pandas as pd
import pytest

from moe_toy.command_line import run_checked
from moe_toy.errors import UserError
from moe_toy.training import checkpoint_file
from moe_toy.training.resume import alone_in
from tests.paths import CONF

TWO_STEPS = ["trainer.max_steps=2", "trainer.val_check_interval=1", "callbacks=none"]


@pytest.fixture(scope="module")
def finished(run, tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs") / "finished", *TWO_STEPS)


def test_a_second_process_is_refused_while_the_first_lives_and_not_after_it_was_killed(tmp_path):
    reader, writer = os.pipe()
    if (process := os.fork()) == 0:
        with alone_in(tmp_path):
            os.write(writer, b"locked")
            signal.pause()
    os.read(reader, 6)
    with pytest.raises(UserError, match="another process is training in"), alone_in(tmp_path):
        pass
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    with alone_in(tmp_path):
        pass


def test_a_new_run_is_refused_where_another_was(run, finished):
    before = (finished / "metrics.csv").read_bytes()
    with pytest.raises(UserError, match=r"holds a run already; continue it with ckpt_path=auto"):
        run(finished, *TWO_STEPS)
    assert (finished / "metrics.csv").read_bytes() == before


def test_continuing_a_finished_run_changes_nothing(run, finished):
    before = {path: path.read_bytes() for path in finished.rglob("*.ckpt")}
    rows = pd.read_csv(finished / "metrics.csv")
    run(finished, *TWO_STEPS, "ckpt_path=auto")
    assert {path: path.read_bytes() for path in finished.rglob("*.ckpt")} == before
    pd.testing.assert_frame_equal(pd.read_csv(finished / "metrics.csv"), rows)


def test_a_full_disk_stops_the_run_and_keeps_what_was_saved(run, tmp_path, monkeypatch):
    write, calls = checkpoint_file._save, []

    def full_at_the_second(content, file):
        calls.append(None)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.file.name)
        write(content, file)

    monkeypatch.setattr(checkpoint_file, "_save", full_at_the_second)
    with pytest.raises(OSError, match="No space left on device"):
        run(tmp_path / "run", *TWO_STEPS)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("step*")] == ["step-000000001.ckpt"]
    run(tmp_path / "run", *TWO_STEPS, "ckpt_path=auto")
    assert (tmp_path / "run" / "checkpoints" / "step-000000002.ckpt").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES], ids=errno.errorcode.get)
def test_what_cannot_be_written_is_told_in_one_line(monkeypatch, capsys, code):
    def main():
        raise OSError(code, os.strerror(code), "outputs/run/metrics.csv")

    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(SystemExit, match="2"):
        run_checked(main, (), CONF, "train")
    line = capsys.readouterr().err
    assert line.startswith(f"error: cannot write outputs/run/metrics.csv ({os.strerror(code)}); ")
    assert line.count("\n") == 1


def test_wandb_goes_on_under_the_same_id(run, tmp_path):
    steps = ["logger=wandb", "callbacks=none", "trainer.val_check_interval=1"]
    run(tmp_path / "run", *steps, "trainer.max_steps=1")
    time.sleep(1)  # W&B names folders by the second
    run(tmp_path / "run", *steps, "trainer.max_steps=2", "ckpt_path=auto")
    ids = [path.name.rpartition("-")[2] for path in (tmp_path / "run" / "wandb").glob("offline-run-*")]
    assert len(ids) == 2
    assert len(set(ids)) == 1


def test_a_run_continued_elsewhere_leaves_the_first_as_it_was(run, finished, tmp_path):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    start = f"ckpt_path={finished}/checkpoints/step-000000001.ckpt"
    run(tmp_path / "elsewhere", *TWO_STEPS, start)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before
    steps = pd.read_csv(tmp_path / "elsewhere" / "metrics.csv").dropna(subset="val/loss").step
    assert steps.tolist() == [2]
    assert (tmp_path / "elsewhere" / "checkpoints" / "best.ckpt").exists()
