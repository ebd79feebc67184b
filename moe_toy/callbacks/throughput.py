"""How fast training goes."""

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from pydantic import PositiveInt

from moe_toy.routing import TokenBatch


class ThroughputCallback(Callback):
    """Logs `train/tokens_per_s`, over all ranks and without validation time, and `train/tokens` seen so far.

    A running mean over about `window` micro-batches, also shown in the progress bar.
    """

    def __init__(self, *, window: PositiveInt) -> None:
        self.keep = 1 - 1 / window
        self.seconds_per_token: float | None = None

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: TokenBatch, batch_idx: int
    ) -> None:
        tokens = batch.token_ids.numel() * trainer.world_size
        now = (time.perf_counter() - self.started) / tokens
        before = now if self.seconds_per_token is None else self.seconds_per_token
        self.seconds_per_token = self.keep * before + (1 - self.keep) * now
        self.log("train/tokens_per_s", 1 / self.seconds_per_token, prog_bar=True)
        self.log("train/tokens", float(trainer.fit_loop.total_batch_idx + 1) * tokens)
