"""That a run comes to validate at all, by Lightning's count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moe_toy.errors import UserError
from moe_toy.training.config import TrainerConfig

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def check_interval(trainer: TrainerConfig | Trainer, num_batches: int) -> None:
    """Refuse an interval of more micro-batches than an epoch trains on, of the `num_batches` that its data give."""
    limit = trainer.overfit_batches or trainer.limit_train_batches
    if limit is not None:
        num_batches = min(num_batches, limit) if isinstance(limit, int) else int(num_batches * limit)
    counts_within_epochs = isinstance(trainer.val_check_interval, int) and trainer.check_val_every_n_epoch is not None
    validates = trainer.overfit_batches or trainer.limit_val_batches != 0
    if counts_within_epochs and validates and 0 < num_batches < trainer.val_check_interval:
        raise UserError(
            f"trainer.val_check_interval ({trainer.val_check_interval}) exceeds the {num_batches} micro-batches that "
            "are trained on; lower it, give a share such as 0.5, or count across epochs with "
            "trainer.check_val_every_n_epoch=null"
        )
