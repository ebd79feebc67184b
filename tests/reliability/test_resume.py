"""A run that was stopped or died continues to exactly the end that it would have had."""

import os
import shutil
import signal
import time
from collections import Counter

import pandas as pd
import pytest
from lightning.pytorch.callbacks import Timer

from moe_toy.runs import checkpoint_file
from tests.reliability.compare import assert_same_end

SHORT = [
    "trainer.max_steps=6",
    "trainer.accumulate_grad_batches=2",
    "trainer.val_check_interval=2",
    "data.validation_batch_size=2",
    "callbacks=none",
    "+callbacks.saturation={_target_:moe_toy.callbacks.saturation.SaturationCallback,probe_batches:2,per_layer:false}",
]


class PowerLoss(Exception):  # noqa: N818
    """Nothing is saved any more."""


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def crash() -> None:
    raise PowerLoss


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """The uninterrupted run of a balancing scheme."""
    runs = {}

    def of(balance: str):
        if balance not in runs:
            folder = tmp_path_factory.mktemp("whole") / balance
            runs[balance] = run(folder, *SHORT, f"balance={balance}")
        return runs[balance]

    return of


# 6 steps of 2 micro-batches; 2 validation batches before the first step and after steps 2, 4 and 6.
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(("training_step", 3, "global_batch", terminate), id="in the middle of a step"),
        pytest.param(("training_step", 4, "loss_free", terminate), id="before a validation"),
        pytest.param(("training_step", 5, "loss_free", terminate), id="right after a checkpoint"),
        pytest.param(("training_step", 6, "global_batch", terminate), id="without a validation"),
        pytest.param(("validation_step", 1, "loss_free", terminate), id="in the first validation"),
        pytest.param(("validation_step", 3, "loss_free", terminate), id="in a validation"),
        pytest.param(("validation_step", 6, "global_batch", terminate), id="at the end of a validation"),
        pytest.param(("validation_step", 7, "loss_free", terminate), id="in the last validation"),
        pytest.param(("training_step", 3, "loss_free", crash), id="crash before any checkpoint"),
        pytest.param(("training_step", 8, "global_batch", crash), id="crash while training"),
        pytest.param(("validation_step", 8, "loss_free", crash), id="crash while validating"),
    ],
)
def test_a_run_continues_exactly(run, whole, at_call, tmp_path, case):
    hook, number, balance, fault = case
    at_call(hook, number, fault)
    with pytest.raises((SystemExit, PowerLoss)):
        run(tmp_path / "run", *SHORT, f"balance={balance}")
    run(tmp_path / "run", *SHORT, f"balance={balance}", "ckpt_path=auto")
    assert_same_end(whole(balance), tmp_path / "run")


def test_other_numbers_of_data_workers_change_nothing(run, whole, at_call, tmp_path):
    at_call("training_step", 5, terminate)
    with pytest.raises(SystemExit):
        run(tmp_path / "run", *SHORT, "balance=loss_free", "data.num_workers=2")
    run(tmp_path / "run", *SHORT, "balance=loss_free", "data.num_workers=1", "ckpt_path=auto")
    assert_same_end(whole("loss_free"), tmp_path / "run")


def test_a_share_of_the_run_that_is_no_whole_number_of_steps_is_continued_too(run, at_call, tmp_path):
    odd = [*SHORT, "trainer.val_check_interval=0.4"]  # of 6 steps
    whole = run(tmp_path / "whole", *odd)
    assert validated_steps(whole) == [0, 2, 4, 6]
    at_call("training_step", 6, crash)
    with pytest.raises(PowerLoss):
        run(tmp_path / "run", *odd)
    run(tmp_path / "run", *odd, "ckpt_path=auto")
    assert_same_end(whole, tmp_path / "run")


def test_a_run_without_time_left_ends_between_steps(run, whole, at_call, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        at_call("training_step", 3, lambda: patch.setattr(Timer, "time_elapsed", lambda *_: 10**6))
        run(tmp_path / "run", *SHORT, "balance=global_batch", "trainer.max_time={hours: 1}")
    assert saved_steps(tmp_path / "run") == [2]
    run(tmp_path / "run", *SHORT, "balance=global_batch", "ckpt_path=auto")
    assert_same_end(whole("global_batch"), tmp_path / "run")


EPOCHS = [*SHORT, "trainer.max_steps=-1", "trainer.limit_train_batches=6", "trainer.max_epochs=2", "balance=loss_free"]
EPOCHS += ["+callbacks.last_validation={_target_:moe_toy.training.last_validation.LastValidationCallback}"]
"""Of three steps, so that validations after two do not fall on their ends."""


def test_a_run_without_time_left_at_the_end_of_an_epoch_goes_on_with_the_next(run, at_call, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", *EPOCHS)
    assert validated_steps(whole) == [0, 2, 5, 6]
    with monkeypatch.context() as patch:
        at_call("training_step", 6, lambda: patch.setattr(Timer, "time_elapsed", lambda *_: 10**6))
        run(tmp_path / "run", *EPOCHS, "trainer.max_time={hours: 1}")
    assert validated_steps(tmp_path / "run") == [0, 2, 3]
    run(tmp_path / "run", *EPOCHS, "ckpt_path=auto")
    assert validated_steps(tmp_path / "run") == [0, 2, 3, 5, 6]
    assert saved_steps(tmp_path / "run") == saved_steps(whole) == [5, 6]


def test_a_run_of_finished_epochs_is_finished(run, tmp_path):
    finished = run(tmp_path / "run", *EPOCHS)
    before = {path: path.read_bytes() for path in finished.rglob("*.ckpt")}
    run(finished, *EPOCHS, "ckpt_path=auto")
    assert {path: path.read_bytes() for path in finished.rglob("*.ckpt")} == before
    run(finished, *EPOCHS, "trainer.max_epochs=3", "ckpt_path=auto")
    assert saved_steps(finished) == [8, 9]


@pytest.mark.parametrize("validations", ["trainer.val_check_interval=2", "trainer.limit_val_batches=0"])
def test_the_last_step_is_saved_without_a_validation_too(run, tmp_path, validations):
    run(tmp_path / "run", *SHORT, "trainer.max_steps=3", validations)
    assert saved_steps(tmp_path / "run")[-1] == 3


def test_resuming_hashes_each_checkpoint_once(run, whole, tmp_path, monkeypatch):
    """Checked, started from, asked for its loggers and read by Lightning."""
    copy = shutil.copytree(whole("loss_free"), tmp_path / "run")
    (copy / "checkpoints" / "step-000000006.ckpt").write_bytes(b"damaged")
    hour_ago = time.time() - 3600
    for path in (copy / "checkpoints").iterdir():
        os.utime(path, (hour_ago, hour_ago))
    hashed, hash_file = Counter(), checkpoint_file.hash_file

    def counting(path, length):
        hashed[path] += 1
        return hash_file(path, length)

    monkeypatch.setattr(checkpoint_file, "hash_file", counting)
    settings = [*SHORT, "balance=loss_free"]
    run(copy, *settings, "ckpt_path=auto")
    started_from = copy / "checkpoints" / "step-000000004.ckpt"
    assert hashed == {started_from: 1}
    run(tmp_path / "other", *settings, f"ckpt_path={whole('loss_free')}")
    assert max(hashed.values()) == 1
    assert len(hashed) == 2
    assert_same_end(whole("loss_free"), copy)


def test_a_run_starts_from_the_weights_in_a_run_directory(run, whole, tmp_path):
    start = whole("loss_free")
    by_folder, by_file = (
        run(tmp_path / name, *SHORT, "trainer.max_steps=2", "balance=loss_free", f"init_from={path}")
        for name, path in (("folder", start), ("file", start / "checkpoints" / "last.ckpt"))
    )
    assert_same_end(by_folder, by_file)


def saved_steps(run_dir):
    return sorted(int(path.stem[5:]) for path in (run_dir / "checkpoints").glob("step-*"))


def validated_steps(run_dir):
    rows = pd.read_csv(run_dir / "metrics.csv")
    return sorted(rows[rows["val/loss"].notna()].step)
