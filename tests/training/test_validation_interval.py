"""An interval that an epoch never reaches is refused, and nothing else."""

from types import SimpleNamespace

import pytest

from moe_toy.errors import UserError
from moe_toy.training.validation_interval import check_interval


def trainer(**changes):
    defaults = {"overfit_batches": 0.0, "limit_train_batches": None, "limit_val_batches": None}
    return SimpleNamespace(**{"val_check_interval": 5, "check_val_every_n_epoch": 1, **defaults, **changes})


@pytest.mark.parametrize(
    ("changes", "num_batches"),
    [({}, 4), ({"limit_train_batches": 4}, 9), ({"limit_train_batches": 0.5}, 9), ({"overfit_batches": 4}, 9)],
)
def test_an_interval_longer_than_an_epoch_is_refused(changes, num_batches):
    with pytest.raises(UserError, match=r"trainer.val_check_interval \(5\) exceeds the 4 micro-batches"):
        check_interval(trainer(**changes), num_batches)


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
    check_interval(trainer(**changes), 4)
