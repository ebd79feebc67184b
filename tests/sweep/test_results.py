"""What the arms of a sweep found, from what they logged."""

import pandas as pd
import pytest

from moe_toy.errors import UserError
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
