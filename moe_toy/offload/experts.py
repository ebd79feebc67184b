"""The experts of one layer, computed out of an engine's slots, to the bit as `Experts` computes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from moe_toy.model.experts import sort_by_expert
from moe_toy.model.layers import swiglu
from moe_toy.model.transformer import MoETransformer
from moe_toy.offload.cache import once
from moe_toy.offload.engine import Engine
from moe_toy.offload.layout import Layout


class OffloadedExperts(nn.Module):
    """Stands where `Experts` stood, with its signature, and holds no parameters. Inference only.

    `guess` names the experts of the next layer from the input of this one, best first: while this layer computes a
    token, they are read.
    """

    def __init__(
        self,
        layer: int,
        engine: Engine,
        layout: Layout,
        slots: list[tuple[Tensor, Tensor]],
        guess: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.guess = guess
        self.layer, self.engine, self.num_experts = layer, engine, layout.num_experts
        self.slots = slots
        """`gate_up` and `down` of whichever expert is in each slot."""

    def forward(
        self,
        x: Float[Tensor, "batch seq hidden"],
        expert_ids: Int[Tensor, "batch seq k"],
        weights: Float[Tensor, "batch seq k"],
    ) -> Float[Tensor, "batch seq hidden"]:
        """Sum over the chosen experts of weight x expert(x)."""
        tokens = rearrange(x, "batch seq hidden -> (batch seq) hidden")
        ids = rearrange(expert_ids, "batch seq k -> (batch seq) k")
        order, position, counts = sort_by_expert(ids, self.num_experts)
        rows = tokens.index_select(0, order // ids.shape[1])
        row_weights = weights.flatten().index_select(0, order).unsqueeze(-1).to(rows.dtype)
        counts = counts.tolist()
        first = self.layer * self.num_experts
        wanted = ids.flatten().tolist()
        items = [first + expert for expert in (wanted if len(ids) == 1 else once(wanted))]
        runs = dict(zip(range(first, first + len(counts)), rows.split(counts), strict=True))
        weights_of = dict(zip(runs, row_weights.split(counts), strict=True))
        done: dict[int, Tensor] = {}
        for part in self.engine.fetch(self.layer, items):
            if self.guess is not None and len(ids) == 1:
                self.engine.guess(self.layer + 1, lambda: self._next_items(x))
            for item, slot, _ in part:
                gate_up, down = self.slots[slot]
                done[item] = (swiglu(runs[item] @ gate_up) * weights_of[item]) @ down
        rows = torch.cat([done[item] for item in sorted(done)])
        return F.embedding_bag(position, rows, mode="sum").type_as(x).view_as(x)

    def _next_items(self, x: Float[Tensor, "1 1 hidden"]) -> list[int]:
        first = (self.layer + 1) * self.num_experts
        return [first + expert for expert in self.guess(x).flatten().tolist()]


@contextmanager
def offloaded(model: MoETransformer, engine: Engine, layout: Layout) -> Iterator[MoETransformer]:
    """The model with experts that an engine fetches, ahead of time where it has slots for guesses; those that the model
    has itself are back afterwards."""
    slots = engine.matrices(layout.matrices)
    layers: Sequence[nn.Module] = [block.ffn for block in model.blocks if block.is_moe]
    resident = [layer.experts for layer in layers]
    guesses = _guesses(model, layers) if engine.ahead is not None else [None] * len(layers)
    try:
        for number, (layer, guess) in enumerate(zip(layers, guesses, strict=True)):
            layer.experts = OffloadedExperts(number, engine, layout, slots, guess)
        yield model
    finally:
        for layer, experts in zip(layers, resident, strict=True):
            layer.experts = experts


def _guesses(model: MoETransformer, layers: Sequence[nn.Module]) -> list[Callable[[Tensor], Tensor] | None]:
    """For each MoE layer: what the router of the next one would choose, which the last does not have."""
    biases = model.balancer.selection_bias
    biases = [None] * len(layers) if biases is None else list(biases)
    following = zip(layers[1:], biases[1:], strict=True)
    return [*(partial(_choice, layer.router, bias) for layer, bias in following), None]


def _choice(router: nn.Module, bias: Tensor | None, x: Float[Tensor, "1 1 hidden"]) -> Int[Tensor, "1 1 k"]:
    return router(x, bias).expert_ids
