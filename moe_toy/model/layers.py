"""Feed-forward building blocks."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from moe_toy.model.own_gradients import OwnRMSNorm, takes_own_gradient


class RMSNorm(nn.RMSNorm):
    """PyTorch's, with its weight in the dtype of `x`: it has no fast kernel for two dtypes, as autocast makes them."""

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        if takes_own_gradient(x):
            return OwnRMSNorm.apply(x, self.weight.to(x.dtype), self.eps)
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


def swiglu(gate_and_up: Float[Tensor, "... double"]) -> Float[Tensor, "... width"]:
    """SiLU of the first half times the second half (Shazeer 2020, arXiv 2002.05202)."""
    gate, up = gate_and_up.chunk(2, dim=-1)
    if gate.device.type == "cpu" and gate.dtype == torch.bfloat16:
        return (F.silu(gate.float()) * up).to(gate.dtype)  # twice as fast as PyTorch's in bf16, and finer
    return F.silu(gate) * up


class SwiGLU(nn.Module):
    """A gated MLP without biases; gate and up projection are one matrix."""

    def __init__(self, hidden_size: int, ffn_hidden_size: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(hidden_size, 2 * ffn_hidden_size, bias=False)
        self.down = nn.Linear(ffn_hidden_size, hidden_size, bias=False)

    def forward(self, x: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
        return self.down(swiglu(self.gate_up(x)))
