"""How fast training goes."""

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from pydantic import PositiveInt

from moe_toy.routing import TokenBatch

FIRST_STEPS = 3
"""Slower than those that follow: memory is found, kernels are chosen and compiled."""


class ThroughputCallback(Callback):
    """Logs `train/tokens_per_s`, over all ranks and without validation time, and `train/tokens` seen so far.

    A running mean over about `window` micro-batches, also shown in the progress bar. Each of the `FIRST_STEPS` after a
    start speaks for itself alone; the mean begins after them.
    """

    def __init__(self, *, window: PositiveInt) -> None:
        self.keep = 1 - 1 / window
        self.seconds_per_token: float | None = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.mean_begins = trainer.global_step + FIRST_STEPS
        self.seconds_per_token = None

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.started, self.step = time.perf_counter(), trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: TokenBatch, batch_idx: int
    ) -> None:
        now = (time.perf_counter() - self.started) / (batch.token_ids.numel() * trainer.world_size)
        before = now if self.step <= self.mean_begins or self.seconds_per_token is None else self.seconds_per_token
        self.seconds_per_token = self.keep * before + (1 - self.keep) * now
        self.log("train/tokens_per_s", 1 / self.seconds_per_token, prog_bar=True)
        self.log("train/tokens", float(trainer.datamodule.position.tokens))
