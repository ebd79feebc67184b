"""What running an arm does with the record in its directory. `train` is a stand-in here."""

import subprocess
import sys
from unittest.mock import Mock

import pytest

from moe_toy.sweep.record import Record, State, lock, read_record
from moe_toy.sweep.run_arm import run_arm
from tests.paths import ROOT


@pytest.fixture
def train():
    return Mock()


def test_a_new_arm_is_trained_and_done_afterwards(tmp_path, train):
    assert read_record(tmp_path).state is State.TO_DO
    run_arm(tmp_path, train)
    train.assert_called_once_with()
    assert read_record(tmp_path).state is State.DONE


def test_a_finished_arm_is_left_alone(tmp_path, train):
    Record(State.DONE, 5.0).write(tmp_path)
    run_arm(tmp_path, train)
    train.assert_not_called()
    assert read_record(tmp_path) == Record(State.DONE, 5.0)


def test_a_failure_is_recorded_in_one_line_not_raised_and_tried_again(tmp_path, train):
    train.side_effect = ValueError("no\nluck")
    run_arm(tmp_path, train)
    record = read_record(tmp_path)
    assert (record.state, record.error) == (State.FAILED, "ValueError: no luck")
    train.side_effect = None
    run_arm(tmp_path, train)
    assert read_record(tmp_path).state is State.DONE
    assert train.call_count == 2


def test_the_seconds_of_all_tries_add_up(tmp_path, train):
    Record(State.FAILED, 100.0, "ValueError: no luck").write(tmp_path)
    run_arm(tmp_path, train)
    assert 100 < read_record(tmp_path).seconds < 160


def test_an_arm_stopped_by_a_signal_is_interrupted_and_keeps_its_time(tmp_path, train):
    Record(State.INTERRUPTED, 100.0).write(tmp_path)
    train.side_effect = SystemExit(143)
    with pytest.raises(SystemExit):
        run_arm(tmp_path, train)
    record = read_record(tmp_path)
    assert record.state is State.INTERRUPTED
    assert 100 < record.seconds < 160


def test_an_arm_that_another_process_trains_is_running_and_left_to_it(tmp_path, train):
    Record(State.RUNNING).write(tmp_path)
    with lock(tmp_path):
        assert read_record(tmp_path).state is State.RUNNING
        run_arm(tmp_path, train)
    train.assert_not_called()
    assert read_record(tmp_path).state is State.INTERRUPTED  # nobody holds the lock any more


def test_a_record_damaged_by_hand_counts_as_none(tmp_path):
    (tmp_path / "arm.json").write_text('{"state": ')
    assert read_record(tmp_path).state is State.TO_DO


def test_skipping_needs_no_heavy_import():
    script = "import sys; import moe_toy.sweep.run_arm; assert not {'torch', 'lightning', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
