"""A run ends with its scores."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class LastValidationCallback(Callback):
    """Validates after the last step too, when it does not fall on `val_check_interval` or its epoch on
    `check_val_every_n_epoch`."""

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        ends_last_epoch = trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs
        if trainer.global_step == trainer.max_steps or ends_last_epoch:
            trainer.should_stop = True  # Lightning validates before it stops
            trainer.check_val_every_n_epoch = None  # in every epoch
