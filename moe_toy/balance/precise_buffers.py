"""Buffers that a cast to half precision leaves alone."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class PreciseBuffers(nn.Module):
    """Its floating-point buffers keep at least fp32 under `.to(dtype)`, `.half()`, `.bfloat16()`; devices do move them.

    Sums of many small changes, and angles of thousands of positions, need more than the three digits of bf16.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        before = {name: x for name, x in self._buffers.items() if x is not None and x.is_floating_point()}
        super()._apply(fn, recurse)
        for name, precise in before.items():
            now = self._buffers[name]
            dtype = torch.promote_types(now.dtype, torch.float32)
            if now.dtype != dtype:
                self._buffers[name] = precise.to(now.device, dtype)
        return self
