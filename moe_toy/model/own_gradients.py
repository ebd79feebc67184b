"""Backward passes written by hand for a CPU, where each pass over a large tensor costs: fewer than autograd takes.

Forward passes compute what the plain functions do, to the bit; those serve elsewhere, in compiled graphs, and where no
gradient is asked for.
"""

from typing import Any

import torch
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
