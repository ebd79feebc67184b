"""Backward passes written by hand for a CPU, where each pass over a large tensor costs: fewer than autograd takes.

Forward passes compute what the plain functions do, to the bit; those serve elsewhere, in compiled graphs, and where no
gradient is asked for.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def takes_own_gradient(x: Tensor) -> bool:
    """Whether `x` is on a CPU, in full precision, part of no compiled graph, and a gradient may be asked for."""
    return (
        x.device.type == "cpu"
        and torch.is_grad_enabled()
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


class OwnRMSNorm(torch.autograd.Function):
    """`F.rms_norm` over the last axis."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = x.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        buffer = d_y.new_empty(x.shape)
        product, rows = torch.mul(d_y, x, out=buffer).flatten(0, -2), scale.flatten()
        d_weight = torch.mv(product.T, rows)
        shift = torch.mv(product, weight).mul_(rows.pow(3)).div_(-len(weight)).view_as(scale)
        return torch.mul(d_y, weight, out=buffer).mul_(scale).addcmul_(x, shift), d_weight, None


class OwnWeightedSwiGLU(torch.autograd.Function):
    """SiLU of the first half of each row times the second half times the row's weight."""

    @staticmethod
    def forward(
        ctx: Any, gate_and_up: Float[Tensor, "row double"], weights: Float[Tensor, "row 1"]
    ) -> Float[Tensor, "row width"]:
        gate, up = gate_and_up.chunk(2, dim=-1)
        activation = F.silu(gate)
        hidden = activation * up
        ctx.save_for_backward(gate_and_up, weights, activation, hidden)
        return hidden * weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor, Tensor]:
        gate_and_up, weights, activation, hidden = ctx.saved_tensors
        gate, up = gate_and_up.chunk(2, dim=-1)
        product = d_y * hidden
        d_weights = product.sum(-1, keepdim=True)
        d_hidden = torch.mul(d_y, weights, out=product)
        d_gate_and_up = torch.empty_like(gate_and_up)
        d_gate, d_up = d_gate_and_up.chunk(2, dim=-1)
        torch.mul(d_hidden, activation, out=d_up)
        torch.ops.aten.silu_backward.grad_input(d_hidden.mul_(up), gate, grad_input=d_gate)
        return d_gate_and_up, d_weights
