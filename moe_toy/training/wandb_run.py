"""A run of Weights & Biases, as this process is asked for it."""

import os
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment

from moe_toy.runs.metrics_file import EPOCH

MODE = "WANDB_MODE"
BEST_AND_LAST = ("val/loss", "val/bits_per_byte")
"""Whose summary has the lowest value beside the last."""


def mode_of(offline: bool) -> str:
    """A user's `WANDB_MODE` wins over the config."""
    return os.environ.get(MODE) or ("offline" if offline else "online")


class WandbRun(WandbLogger):
    """Lightning's, without its trace in the environment: a run that is offline makes no later one so, and silence is
    its own."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            self._wandb_init.setdefault("mode", mode_of(self._offline))
            self._wandb_init["settings"] = {"silent": True, **self._wandb_init.get("settings", {})}
            self._wandb_init.pop("anonymous", None)  # it has no effect, and W&B says so each time
            self._offline = False  # or Lightning would set WANDB_MODE for good
            run = super().experiment
            for key in BEST_AND_LAST:
                run.define_metric(key, summary="min,last")
        return super().experiment

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        super().log_metrics({key: value for key, value in metrics.items() if key != EPOCH}, step)
