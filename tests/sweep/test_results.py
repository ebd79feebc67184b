"""What the arms of a sweep found, from what they logged."""

import threading
import time

import pandas as pd
import pytest

from moe_toy.errors import UserError
from moe_toy.report.sweep_files import read_sweep
from moe_toy.sweep import results
from moe_toy.sweep.arm import Arm
from moe_toy.sweep.record import Record, State
from moe_toy.sweep.results import final_metrics, write_results


def log(folder, **columns):
    pd.DataFrame({"step": range(3), "epoch": 0, **columns}).to_csv(folder / "metrics.csv", index=False)


def test_the_last_validation_counts_and_the_last_value_of_training(tmp_path):
    log(tmp_path, **{"val/loss": [5, 4, None], "consistency/srp@16": [0.5, 0.4, None], "train/loss": [None, 6, 3]})
    assert final_metrics(tmp_path) == {"step": 1, "val/loss": 4, "consistency/srp@16": 0.4, "train/loss": 3}


@pytest.mark.parametrize("validation", [{}, {"val/loss": [None] * 3}], ids=["absent", "empty"])
def test_a_run_without_validation_has_its_training(tmp_path, validation):
    log(tmp_path, **{"train/loss": [7, 6, None]}, **validation)
    assert final_metrics(tmp_path) == {"train/loss": 6}


def test_a_validation_counts_whatever_it_measured(tmp_path):
    log(tmp_path, **{"consistency/srp@16": [0.5, 0.4, None], "train/loss": [None, 6, 3]})
    assert final_metrics(tmp_path) == {"step": 1, "consistency/srp@16": 0.4, "train/loss": 3}


def test_what_a_callback_of_the_user_logs_while_training_takes_no_place_of_the_validation(tmp_path):
    """As Lightning's LearningRateMonitor does: the last row was its own, with no validation in it."""
    log(tmp_path, **{"val/loss": [5, 4, None], "lr-AdamW": [0.1, None, 0.2], "train/loss": [None, 6, 3]})
    assert final_metrics(tmp_path) == {"step": 1, "val/loss": 4, "lr-AdamW": 0.2, "train/loss": 3}


def test_a_run_without_loggers_has_nothing(tmp_path):
    assert final_metrics(tmp_path) == {}


@pytest.mark.parametrize(
    "content", [b"", b"step,val/loss\n", b"no table", b"step\nx\n", b"a\n1,2\n1\n", b"\xff\xfe\0"], ids=str
)
def test_damaged_metrics_are_told(tmp_path, content):
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"metrics.csv is damaged \(.*\); remove its directory"):
        final_metrics(tmp_path)


def test_damaged_results_of_before_are_told(tmp_path):
    (tmp_path / "results.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"results.parquet is damaged .*; remove it and run the sweep's command again"):
        write_results([], tmp_path)


@pytest.fixture
def arms(tmp_path, monkeypatch):
    """Three that are finished."""
    row = {"num_experts": 8, "top_k": 2, "total_parameters": 1, "active_parameters": 1, "flops_per_token": 1}
    monkeypatch.setattr(results, "result", lambda arm: row | {"arm": arm.name, "seed": 1, "run_dir": arm.name})
    for name in "abc":
        (tmp_path / name).mkdir()
        Record(State.DONE).write(tmp_path / name)
    return [Arm({"arm": name}, {}) for name in "abc"]


def test_an_arm_that_is_not_finished_any_more_has_no_row(arms, tmp_path):
    """Someone removed its directory, to train it anew, and that failed: the row of before stayed."""
    write_results(arms, tmp_path)
    Record(State.FAILED).write(tmp_path / "a")
    write_results(arms[2:], tmp_path)
    assert read_sweep(tmp_path).arm.tolist() == ["b", "c"]


def test_two_commands_that_end_at_once_keep_each_others_rows(arms, tmp_path, monkeypatch):
    """The second had read the table before the first wrote it, and wrote it without those rows."""
    first, second, third = arms
    write_results([first], tmp_path)
    other = threading.Thread(target=write_results, args=([second], tmp_path))

    def read_slowly(directory):
        table = read_sweep(directory)
        if threading.current_thread() is threading.main_thread():
            other.start()
            time.sleep(0.3)
        return table

    monkeypatch.setattr(results, "read_sweep", read_slowly)
    write_results([third], tmp_path)
    other.join()
    assert set(read_sweep(tmp_path).arm) == {"a", "b", "c"}
