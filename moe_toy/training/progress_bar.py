"""One bar for the whole run."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

SHOWN = {"train/loss": ("loss", ".3f"), "train/tokens_per_s": ("tokens/s", ",.0f"), "train/mfu": ("MFU", ".0%")}


class TrainingProgress(RichProgressBar):
    """Steps done, time left, loss, tokens per second and, where known, the share of the device's peak; a second bar
    while a validation runs. Reading a loss waits for a GPU, so there it is as old as the last logged step."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: dict[str, str] = {}

    def _get_train_description(self, current_epoch: int) -> str:
        return "Training".ljust(len(self.validation_description))  # a run has no epochs to tell of

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, str]:
        is_logged = trainer.fast_dev_run or trainer._logger_connector.should_update_logs
        if pl_module.device.type == "cuda" and not is_logged:
            return self.shown
        metrics = super().get_metrics(trainer, pl_module)
        self.shown = {name: format(metrics[key], digits) for key, (name, digits) in SHOWN.items() if key in metrics}
        return self.shown
