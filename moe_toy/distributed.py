"""Sums and lists over ranks: the only file that talks to torch.distributed."""

from typing import TypeVar

import torch.distributed as dist
from torch import Tensor

Item = TypeVar("Item")


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum of `x` over all ranks, without gradients; `x` itself in a single process."""
    if not _is_distributed():
        return x
    total = x.detach().clone()
    dist.all_reduce(total)
    return total


def part_of_this_rank(x: Tensor) -> Tensor:
    """The shard of a sharded tensor; `x` itself where it is whole."""
    if not _is_distributed():
        return x
    from torch.distributed.tensor import DTensor  # half a second

    return x.to_local() if isinstance(x, DTensor) else x


def join_over_ranks(items: list[Item]) -> list[Item]:
    """The lists of all ranks one after another, on every rank; `items` itself in a single process."""
    if not _is_distributed():
        return items
    lists: list[list[Item]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(lists, items)
    return [item for joined in lists for item in joined]


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
