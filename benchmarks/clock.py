"""A Lightning callback that tells where the time of a run went."""

import time

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class Clock(Callback):
    """Prints, when training ends, seconds since `started` (of `time.perf_counter`) and those spent in validation."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.first_step: float | None = None
        self.validation = 0.0

    def on_train_batch_end(self, *args: object) -> None:
        if self.first_step is None:
            self.first_step = time.perf_counter() - self.started

    def on_validation_start(self, *args: object) -> None:
        self.validation_started = time.perf_counter()

    def on_validation_end(self, *args: object) -> None:
        self.validation += time.perf_counter() - self.validation_started

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        seconds = time.perf_counter() - self.started
        print(f"first step after {self.first_step:7.1f} s")
        print(f"validation       {self.validation:7.1f} s, {self.validation / seconds:.1%} of the run")
        print(f"whole run        {seconds:7.1f} s, {trainer.global_step} steps")
