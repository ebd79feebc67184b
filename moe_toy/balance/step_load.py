"""The load of a whole optimiser step: over all ranks and all micro-batches."""

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from moe_toy.balance.base import PreciseBuffers
from moe_toy.balance.counts import assignment_counts
from moe_toy.distributed import sum_over_ranks


class StepLoad(PreciseBuffers):
    """What a micro-batch knows of the load of its step: what was counted so far or, after `foresee`, all of it.

    At the end of the step the true load is known; `finish` says how far estimates were from it, as a share of the
    step's own distance from even load: at 1 an estimate is as bad as to suppose balance.
    """

    def __init__(self, num_layers: int, num_experts: int) -> None:
        super().__init__()
        # Not saved: between optimiser steps, when checkpoints are written, there is nothing to remember.
        self.register_buffer("counts", torch.zeros(num_layers, num_experts, dtype=torch.int64), persistent=False)
        self.register_buffer("previous", torch.full((num_layers, num_experts), 1 / num_experts))
        self.foreseen: Tensor | None = None
        self.prefixes: list[Tensor] = []

    def foresee(self, micro_batches: Iterable[Int[Tensor, "layer batch seq k"]]) -> None:
        num_experts = self.counts.shape[-1]
        local = sum(assignment_counts(expert_ids.flatten(1, 2), num_experts) for expert_ids in micro_batches)
        self.foreseen = sum_over_ranks(local)

    @torch._disable_dynamo  # loads the compiler when first called; sums over ranks and remembers: nothing to compile
    def add(self, counts: Int[Tensor, "layer expert"]) -> Int[Tensor, "layer expert"]:
        """Count a micro-batch; returns assignments in proportion to the best known load of the step."""
        self.counts = self.counts + sum_over_ranks(counts)
        self.prefixes.append(self.counts)
        return self.counts if self.foreseen is None else self.foreseen

    def finish(self) -> dict[str, Tensor]:
        """End the step; returns the errors of estimates by name."""
        load = fractions(self.counts)
        estimates = {"prefix": torch.stack([fractions(prefix) for prefix in self.prefixes]), "previous": self.previous}
        if self.foreseen is not None:
            estimates["exact"] = fractions(self.foreseen)  # zero, or something is wrong
        imbalance = (load - 1 / load.shape[-1]).norm().clamp(min=torch.finfo(load.dtype).tiny)
        self.previous, self.counts = load, torch.zeros_like(self.counts)
        self.foreseen, self.prefixes = None, []
        return {name: (x - load).norm(dim=(-2, -1)).mean() / imbalance for name, x in estimates.items()}


def fractions(counts: Int[Tensor, "*group expert"]) -> Float[Tensor, "*group expert"]:
    """The load: each expert's share of the assignments."""
    return counts.float() / counts.sum(-1, keepdim=True)
