"""One bar for the whole run."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

SHOWN = {"train/loss": ("loss", ".3f"), "train/tokens_per_s": ("tokens/s", ",.0f")}


class TrainingProgress(RichProgressBar):
    """Steps done, time left, loss and tokens per second; a second bar while a validation runs."""

    def _get_train_description(self, current_epoch: int) -> str:
        return "Training".ljust(len(self.validation_description))  # a run has no epochs to tell of

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, str]:
        metrics = super().get_metrics(trainer, pl_module)
        return {name: format(metrics[key], digits) for key, (name, digits) in SHOWN.items() if key in metrics}
