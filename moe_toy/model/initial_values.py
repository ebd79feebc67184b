"""Initial values of parameters: drawn, or left out where only shapes are asked for."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


def init_matrices(module: nn.Module, std: float, seed: int) -> None:
    """Draw every parameter with two or more axes from N(0, std); norms keep their ones.

    Each is drawn from (seed, its name) alone, so models that differ in one part share the weights of all others.
    """
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1 and not parameter.is_meta:
            generator = torch.Generator(parameter.device).manual_seed(seed_of(seed, name))
            nn.init.normal_(parameter, std=std, generator=generator)


def seed_of(seed: int, name: str) -> int:
    """A seed for one of many streams: equal names give equal seeds, other names unrelated ones."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=7).digest())


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
