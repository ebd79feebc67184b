"""What a step is, and that nothing but whole ones is trained on."""

from types import SimpleNamespace

import pytest

from moe_toy.errors import UserError
from moe_toy.training.steps import (
    accumulated_batches,
    check_interval,
    check_whole_steps,
    micro_batches_per_step,
    reset_batch_counts,
    set_epoch,
    set_validations,
)


@pytest.mark.parametrize(("num_ranks", "expected"), [(1, 64), (8, 8), (64, 1)])
def test_more_ranks_accumulate_less(num_ranks, expected):
    assert accumulated_batches(1024, batch_size=16, num_ranks=num_ranks) == expected


@pytest.mark.parametrize("num_ranks", [3, 128])
def test_a_batch_that_ranks_cannot_share_is_refused(num_ranks):
    with pytest.raises(UserError, match=rf"global_batch_size \(1024\) must be a multiple .* x {num_ranks} = "):
        accumulated_batches(1024, batch_size=16, num_ranks=num_ranks)


def test_accumulation_is_not_said_twice():
    assert micro_batches_per_step(None, batch_size=16, accumulate_grad_batches=4) == 4
    assert micro_batches_per_step(1024, batch_size=16, accumulate_grad_batches=1) == 64
    with pytest.raises(UserError, match="accumulate_grad_batches=4 is derived from global_batch_size=1024"):
        micro_batches_per_step(1024, batch_size=16, accumulate_grad_batches=4)


def trainer(**changes):
    defaults = {"overfit_batches": 0.0, "limit_train_batches": None, "limit_val_batches": None, "fast_dev_run": False}
    defaults |= {"val_check_interval": 5, "check_val_every_n_epoch": 1, "max_steps": -1, "max_epochs": -1}
    return SimpleNamespace(**defaults | changes)


@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize(
    ("changes", "num_steps"),
    [({}, 4), ({"limit_train_batches": 4}, 9), ({"limit_train_batches": 0.5}, 9), ({"overfit_batches": 4}, 9)],
)
def test_an_interval_longer_than_an_epoch_is_refused(changes, num_steps, accumulated):
    limits = {name: limit * accumulated if isinstance(limit, int) else limit for name, limit in changes.items()}
    with pytest.raises(UserError, match=r"trainer.val_check_interval \(5\) exceeds the 4 steps"):
        check_interval(trainer(**limits), num_steps, accumulated)


@pytest.mark.parametrize(
    "changes",
    [
        {"val_check_interval": 4},
        {"val_check_interval": 1.0},
        {"check_val_every_n_epoch": None},
        {"limit_val_batches": 0},
        {"limit_train_batches": 0},
    ],
)
def test_what_lightning_takes_is_taken(changes):
    check_interval(trainer(**changes), 4, 1)


@pytest.mark.parametrize(
    ("changes", "num_epochs"),
    [({"max_steps": 4}, 1), ({"max_epochs": 2}, 2), ({"max_steps": 8, "limit_train_batches": 4}, 2)],
)
def test_a_run_of_too_few_epochs_to_validate_after_is_refused(changes, num_epochs):
    seldom = trainer(val_check_interval=0.5, check_val_every_n_epoch=num_epochs + 1, **changes)
    with pytest.raises(UserError, match=rf"_n_epoch \({num_epochs + 1}\) exceeds the epochs .* \({num_epochs}, of 4 "):
        check_interval(seldom, 4, 1)
    seldom.check_val_every_n_epoch = num_epochs
    check_interval(seldom, 4, 1)


@pytest.mark.parametrize("name", ["limit_train_batches", "overfit_batches"])
def test_an_epoch_that_ends_within_a_step_is_refused(name):
    check_whole_steps(trainer(**{name: 4}), 2)
    with pytest.raises(UserError, match=rf"trainer.{name}=3 ends within a step of 2 micro-batches; .* such as 4"):
        check_whole_steps(trainer(**{name: 3}), 2)


def test_a_share_of_an_epoch_is_one_of_whole_steps():
    half = trainer(accumulate_grad_batches=2, limit_train_batches=0.5, val_check_interval=1.0)
    for _ in range(2):  # once for each stage
        set_epoch(half, 10)
        assert half.limit_train_batches == 4


@pytest.mark.parametrize("accumulated", [1, 2, 3])
@pytest.mark.parametrize(("interval", "steps"), [(0.1, 1), (0.5, 7), (4, 4), (1.0, 15)])
def test_validations_come_after_as_many_steps_however_a_step_is_split(interval, steps, accumulated):
    split = trainer(
        accumulate_grad_batches=accumulated, val_check_interval=interval, num_training_batches=15 * accumulated
    )
    set_validations(split)
    assert split.val_check_batch == steps * accumulated


def test_batches_done_are_counted_in_those_of_now():
    batches = {"total": {"ready": 12, "completed": 12}, "current": {"ready": 4, "completed": 4}}
    state = {"epoch_loop.batch_progress": batches}
    reset_batch_counts(state, step=6, accumulated=3)
    assert batches == {"total": {"ready": 18, "completed": 18}, "current": {"ready": 6, "completed": 6}}


def test_a_share_of_less_than_a_step_is_refused_and_zero_is_not():
    options = {"accumulate_grad_batches": 2, "val_check_interval": 1.0}
    set_epoch(trainer(limit_train_batches=0.0, **options), 10)
    with pytest.raises(UserError, match=r"limit_train_batches=0.1 of 5 steps is none"):
        set_epoch(trainer(limit_train_batches=0.1, **options), 10)
