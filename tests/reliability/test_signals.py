"""Being asked to stop ends a run within one step, and its process with 128 + the number of the signal."""

import multiprocessing
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1], ids=lambda number: number.name)
def test_a_signal_to_data_workers_too_loses_nothing(run, at_call, tmp_path, number):
    def tell_everyone():
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, number)
        os.kill(os.getpid(), number)

    at_call("training_step", 3, tell_everyone)
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "run", *SHORT, "data.num_workers=1")
    assert stop.value.code == 128 + number
    assert (tmp_path / "run" / "checkpoints" / "step-000000003.ckpt").exists()


def test_a_signal_after_the_last_step_ends_the_process_once_the_run_is_done(run, at_call, tmp_path):
    at_call("on_validation_epoch_end", 2, lambda: os.kill(os.getpid(), signal.SIGTERM))  # no batch follows it
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "run", *SHORT)
    assert stop.value.code == 128 + signal.SIGTERM
    assert (tmp_path / "run" / "curves.png").exists()


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
