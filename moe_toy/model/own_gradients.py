"""Backward passes written by hand for a CPU, where each pass over a large tensor costs: fewer than autograd takes.

Forward passes compute what the plain functions do, to the bit; those serve elsewhere, in compiled graphs, and where no
gradient is asked for.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def takes_own_gradient(x: Tensor) -> bool:
    """Whether `x` is on a CPU, no fp16, part of no compiled graph, and a gradient may be asked for."""
    return (
        x.device.type == "cpu"
        and torch.is_grad_enabled()
        and x.dtype in (torch.float32, torch.float64, torch.bfloat16)
        and not torch.compiler.is_compiling()
    )


class OwnRMSNorm(torch.autograd.Function):
    """`F.rms_norm` over the last axis; as there, bf16 is computed in fp32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).mul_(weight).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor, Tensor, None]:
        saved_x, saved_weight, scale = ctx.saved_tensors
        x, weight, d_y = saved_x.to(scale.dtype), saved_weight.to(scale.dtype), d_y.to(scale.dtype)
        buffer = d_y.new_empty(x.shape)
        product, rows = torch.mul(d_y, x, out=buffer).flatten(0, -2), scale.flatten()
        d_weight = torch.mv(product.T, rows)
        shift = torch.mv(product, weight).mul_(rows.pow(3)).div_(-len(weight)).view_as(scale)
        d_x = torch.mul(d_y, weight, out=buffer).mul_(scale).addcmul_(x, shift)
        return d_x.to(saved_x.dtype), d_weight.to(saved_weight.dtype), None
