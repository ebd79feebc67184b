"""How fast training goes, how much of the device that uses, and how much of its memory."""

import time
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from pydantic import PositiveInt

from moe_toy.routing import TokenBatch

FIRST_STEPS = 3
"""Slower than those that follow: memory is found, kernels are chosen and compiled."""
PEAK_TFLOPS = {
    "B200": 2250,
    "H200 NVL": 835,
    "H200": 989,
    "GH200": 989,
    "H100 NVL": 835,
    "H100 PCIe": 756,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L4": 121,
    "A10": 125,
}
"""Dense matrix products in bf16, by what the name of a device contains, from the data sheets of its maker."""


class ThroughputCallback(Callback):
    """Logs `train/tokens_per_s`, over all ranks and without what lies between micro-batches (validation, saving
    and waiting for data), and `train/tokens` seen so far; on CUDA `train/memory_gib`, the most that this rank's tensors
    took since training began, and on a device whose peak in bf16 is known, where the precision is that, `train/mfu`,
    the share of it that the operations of the model are.

    A running mean over about `window` micro-batches, also shown in the progress bar. Each of the `FIRST_STEPS` after a
    start speaks for itself alone; the mean begins after them.
    """

    def __init__(self, *, window: PositiveInt) -> None:
        self.window = window
        self.seconds_per_token: float | None = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.mean_begins = trainer.global_step + FIRST_STEPS
        self.seconds_per_token = None
        self.seconds, self.tokens, self.batches = 0.0, 0, 0
        self.on_cuda = module.device.type == "cuda"
        self.peak = peak_flops(torch.cuda.get_device_name(module.device), trainer.precision) if self.on_cuda else None
        if self.on_cuda:
            torch.cuda.reset_peak_memory_stats(module.device)

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.started, self.step = time.perf_counter(), trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: TokenBatch, batch_idx: int
    ) -> None:
        is_first = self.step <= self.mean_begins
        if self.on_cuda:  # which has only been told what to do
            if not is_first and not trainer._logger_connector.should_update_logs:
                self._add(batch, trainer)
                return
            torch.cuda.synchronize(module.device)
        self._add(batch, trainer)
        now, keep = self.seconds / self.tokens, (1 - 1 / self.window) ** self.batches
        before = now if is_first or self.seconds_per_token is None else self.seconds_per_token
        self.seconds_per_token = keep * before + (1 - keep) * now
        self.seconds, self.tokens, self.batches = 0.0, 0, 0
        self._log("train/tokens_per_s", 1 / self.seconds_per_token, prog_bar=True)
        self._log("train/tokens", float(trainer.datamodule.position.tokens))
        if self.on_cuda:
            self._log("train/memory_gib", torch.cuda.max_memory_allocated(module.device) / 2**30)
        if self.peak is not None:
            flops = module.model.config.flops_per_token(batch.token_ids.shape[1])
            self._log("train/mfu", flops / self.seconds_per_token / (self.peak * trainer.world_size), prog_bar=True)

    def _add(self, batch: TokenBatch, trainer: Trainer) -> None:
        self.seconds += time.perf_counter() - self.started
        self.tokens += batch.token_ids.numel() * trainer.world_size
        self.batches += 1

    def _log(self, key: str, value: float, prog_bar: bool = False) -> None:
        self.log(key, torch.tensor(value), prog_bar=prog_bar)  # a number would be copied to the device, which waits


def peak_flops(device_name: str, precision: str) -> float | None:
    """Floating-point operations per second of the tensor cores of a GPU in bf16; None where they are not known, as of a
    part of a GPU (MIG), and in other precisions."""
    if not str(precision).startswith("bf16"):
        return None
    words = device_name.replace("-", " ").split()
    known = [name for name in PEAK_TFLOPS if all(word in words for word in name.split())]
    return PEAK_TFLOPS[max(known, key=len)] * 1e12 if known and "MIG" not in words else None
