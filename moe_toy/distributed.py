"""Sums over ranks: the only file that talks to torch.distributed."""

import torch.distributed as dist
from torch import Tensor


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum of `x` over all ranks, without gradients; `x` itself in a single process."""
    if not (dist.is_available() and dist.is_initialized()):
        return x
    total = x.detach().clone()
    dist.all_reduce(total)
    return total
