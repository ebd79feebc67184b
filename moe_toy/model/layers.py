"""Feed-forward building blocks."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

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
    return F.silu(gate) * up


class SwiGLU(nn.Module):
    """A gated MLP without biases; gate and up projection are one matrix."""

    def __init__(self, hidden_size: int, ffn_hidden_size: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(hidden_size, 2 * ffn_hidden_size, bias=False)
        self.down = nn.Linear(ffn_hidden_size, hidden_size, bias=False)

    def forward(self, x: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
        return self.down(swiglu(self.gate_up(x)))


def init_matrices(module: nn.Module, std: float, seed: int) -> None:
    """Draw every parameter with two or more axes from N(0, std); norms keep their ones.

    Each is drawn from (seed, its name) alone, so models that differ in one part share the weights of all others.
    """
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1 and not parameter.is_meta:
            generator = torch.Generator(parameter.device).manual_seed(seed_of(seed, name))
            nn.init.normal_(parameter, std=std, generator=generator)


@contextmanager
def without_memory() -> Iterator[None]:
    """Build modules on the meta device. To draw values there would load torch's compiler, which takes a second."""
    with torch.device("meta"), _WithoutValues():
        yield


class _WithoutValues(TorchFunctionMode):
    """Leave out the initial values that PyTorch draws for its modules."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


def seed_of(seed: int, name: str) -> int:
    """A seed for one of many streams: equal names give equal seeds, other names unrelated ones."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=7).digest())
