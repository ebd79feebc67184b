"""Routed experts: sort the assignments by expert, compute each expert on its rows, add up per token."""

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from moe_toy.model.config import ModelConfig
from moe_toy.model.expert_backends import multiple_of_rows, pick_backend
from moe_toy.model.layers import swiglu


class Experts(nn.Module):
    """`num_experts` SwiGLU MLPs without biases, their matrices stacked along the first axis."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.expert_hidden_size
        self.backend = config.moe.backend
        self.gate_up = nn.Parameter(torch.empty(config.moe.num_experts, config.hidden_size, 2 * width))
        self.down = nn.Parameter(torch.empty(config.moe.num_experts, width, config.hidden_size))

    def forward(
        self,
        x: Float[Tensor, "batch seq hidden"],
        expert_ids: Int[Tensor, "batch seq k"],
        weights: Float[Tensor, "batch seq k"],
    ) -> Float[Tensor, "batch seq hidden"]:
        """Sum over the chosen experts of weight x expert(x); no token is dropped."""
        tokens = rearrange(x, "batch seq hidden -> (batch seq) hidden")
        gate_up, down = self.gate_up, self.down
        if torch.is_autocast_enabled(x.device.type):  # the grouped product does not cast by itself
            dtype = torch.get_autocast_dtype(x.device.type)
            tokens, gate_up, down = tokens.to(dtype), gate_up.to(dtype), down.to(dtype)
        expert_linear = pick_backend(self.backend, tokens.device, tokens.dtype, (*gate_up.shape[1:], *down.shape[1:]))

        order, position, counts = sort_by_expert(rearrange(expert_ids, "batch seq k -> (batch seq) k"), len(down))
        is_assignment = None
        if (multiple := multiple_of_rows(tokens.device, tokens.dtype)) > 1:
            order, position, counts, is_assignment = pad_runs(order, position, counts, multiple)
        token_of_row = order // expert_ids.shape[-1]
        rows = Dispatch.apply(tokens, token_of_row, position)
        row_weights = weights.flatten().index_select(0, order).unsqueeze(-1).to(rows.dtype)
        if is_assignment is not None:
            row_weights = row_weights * is_assignment.unsqueeze(-1)  # what fills up has no part in sums and gradients
        # Weighting before the down projection gives the same sum, and spares keeping its output for the backward pass.
        hidden = swiglu(expert_linear(rows, gate_up, counts)) * row_weights
        rows = expert_linear(hidden, down, counts)
        return Combine.apply(rows, token_of_row, position).type_as(x).view_as(x)


class Dispatch(torch.autograd.Function):
    """Copy each token to its rows. The backward pass is `Combine`: no scattering, hence no zeros and no atomics."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, token_of_row: Tensor, position: Tensor) -> Tensor:
        ctx.save_for_backward(position)
        return tokens.index_select(0, token_of_row)

    @staticmethod
    def backward(ctx: Any, d_rows: Tensor) -> tuple[Tensor, None, None]:
        (position,) = ctx.saved_tensors
        return sum_rows(d_rows, position), None, None


class Combine(torch.autograd.Function):
    """Add up the rows of each token. The backward pass is `Dispatch`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, token_of_row: Tensor, position: Tensor) -> Tensor:
        ctx.save_for_backward(token_of_row)
        return sum_rows(rows, position)

    @staticmethod
    def backward(ctx: Any, d_tokens: Tensor) -> tuple[Tensor, None, None]:
        (token_of_row,) = ctx.saved_tensors
        return d_tokens.index_select(0, token_of_row), None, None


def sum_rows(rows: Float[Tensor, "row hidden"], position: Int[Tensor, "token k"]) -> Float[Tensor, "token hidden"]:
    """The sum of the k rows of each token, always in the same order."""
    if torch.compiler.is_compiling() and rows.is_cuda:
        return gather_and_sum(rows, position)
    return F.embedding_bag(position, rows, mode="sum")


def gather_and_sum(
    rows: Float[Tensor, "row hidden"], position: Int[Tensor, "token k"]
) -> Float[Tensor, "token hidden"]:
    """The same in operations that a compiler joins into one kernel, which reads each row once, adds up in fp32 and
    writes each sum once."""
    gathered = rows.index_select(0, position.flatten()).view(*position.shape, -1)
    return gathered.to(torch.promote_types(rows.dtype, torch.float32)).sum(1).to(rows.dtype)


def sort_by_expert(
    expert_ids: Int[Tensor, "token k"], num_experts: int
) -> tuple[Int[Tensor, " assignment"], Int[Tensor, "token k"], Int[Tensor, " expert"]]:
    """The assignments (token x k, flattened) in expert order, where each of them ended up, and rows per expert."""
    # Short numbers sort three times as fast on a CPU.
    keys = expert_ids.flatten().to(torch.int16 if num_experts <= 2**15 else torch.int64)
    order = keys.argsort(stable=True)
    position = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    counts = torch.zeros(num_experts, dtype=torch.int64, device=order.device)
    counts.scatter_add_(0, expert_ids.flatten(), torch.ones_like(order))  # bincount would wait for the device
    return order, position.view_as(expert_ids), counts


def pad_runs(
    order: Int[Tensor, " assignment"],
    position: Int[Tensor, "token k"],
    counts: Int[Tensor, " expert"],
    multiple: int,
) -> tuple[Int[Tensor, " row"], Int[Tensor, "token k"], Int[Tensor, " expert"], Bool[Tensor, " row"]]:
    """What `sort_by_expert` gives, with the rows of every expert filled up to a multiple by repeating the first
    assignment; and which rows are assignments."""
    missing = -counts % multiple
    row = torch.arange(len(order)) + (missing.cumsum(0) - missing).repeat_interleave(counts)
    length = len(order) + int(missing.sum())
    is_assignment = torch.zeros(length, dtype=torch.bool).index_fill_(0, row, True)
    return order.new_zeros(length).scatter_(0, row, order), row[position], counts + missing, is_assignment
