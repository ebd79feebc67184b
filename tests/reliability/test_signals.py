"""Being asked to stop ends a run within one step, and its process with 128 + the number of the signal."""

import os
import signal

import pytest
import torch

SHORT = ["trainer.max_steps=9", "trainer.val_check_interval=9", "callbacks=none"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1], ids=lambda number: number.name)
def test_a_signal_stops_within_one_step(run, at_call, tmp_path, number):
    before = signal.getsignal(number)
    at_call("training_step", 3, lambda: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "run", *SHORT)
    assert stop.value.code == 128 + number
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 3
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_stops_at_once(run, at_call, tmp_path):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    at_call("training_step", 3, twice)
    with pytest.raises(SystemExit):
        run(tmp_path / "run", *SHORT)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_checkpoints_between_validations(run, tmp_path):
    run(tmp_path / "run", *SHORT, "callbacks.checkpoint.every_n_steps=4", "callbacks.checkpoint.keep_last=9")
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["best.ckpt", "last.ckpt", *(f"step-{step:09d}.ckpt" for step in (4, 8, 9))]
