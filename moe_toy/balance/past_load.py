"""The load of past optimiser steps, as a running average."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from moe_toy.balance.base import PreciseBuffers
from moe_toy.balance.counts import StepCounts
from moe_toy.balance.step_load import fractions
from moe_toy.distributed import sum_over_ranks


class PastLoad(PreciseBuffers):
    """Known before a step begins, so every way of splitting the step into micro-batches sees the same load.

    The mean over all steps until they are 1 / (1 - decay), then exponential: `decay=0` is the previous step alone.
    Before the first step the load counts as even, which pulls nowhere. Saved with the model.
    """

    def __init__(self, num_layers: int, num_experts: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.step_counts = StepCounts(num_layers, num_experts)
        self.register_buffer("average", torch.full((num_layers, num_experts), 1 / num_experts))
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.int64))

    def add(self, counts: Int[Tensor, "layer expert"]) -> Float[Tensor, "layer expert"]:
        self.step_counts.add(counts)
        return self.average

    def finish(self) -> dict[str, Tensor]:
        load = fractions(sum_over_ranks(self.step_counts.total))
        self.num_steps = self.num_steps + 1
        rate = (1 / self.num_steps).clamp(min=1 - self.decay)
        self.average = self.average + rate * (load - self.average)
        self.step_counts.clear()
        return {}
