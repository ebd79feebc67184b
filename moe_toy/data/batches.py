"""Sequences by number, the numbers of one rank, and batches of them."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from moe_toy.data.order import TrainingOrder
from moe_toy.data.packing import TokenStream
from moe_toy.errors import STOP_SIGNALS, UserError
from moe_toy.routing import TokenBatch


class Sequences(Dataset[tuple[Tensor, int]]):
    """Sample i is the sequence that `order[i]` = (domain, block) names, with its domain."""

    def __init__(
        self, streams: Sequence[TokenStream], length: int, order: TrainingOrder | list[tuple[int, int]]
    ) -> None:
        self.streams = streams
        self.length = length
        self.order = order

    def __getitem__(self, sample: int) -> tuple[Tensor, int]:
        domain, block = self.order[sample]
        return self.streams[domain].block(block, self.length), domain

    def __len__(self) -> int:
        return len(self.order)


class TrainingSampler(Sampler[int]):
    """The sample numbers of one rank: of every `num_ranks` consecutive micro-batches the one numbered `rank`.

    They start at `first()`, asked when an iteration begins, so that a resumed run goes on where it stopped. The
    length is that of a whole epoch all the same: Lightning itself counts the batches done before.
    """

    def __init__(
        self, *, first: Callable[[], int], num_batches: int, batch_size: int, rank: int, num_ranks: int
    ) -> None:
        self.first = first
        self.num_batches = num_batches
        self.batch_size = batch_size
        self.rank = rank
        self.num_ranks = num_ranks

    def __len__(self) -> int:
        return self.num_batches * self.batch_size

    def __iter__(self) -> Iterator[int]:
        first = self.first()
        for batch in range(self.num_batches):
            start = first + (batch * self.num_ranks + self.rank) * self.batch_size
            yield from range(start, start + self.batch_size)


class TrainingLoader(DataLoader):
    """Tells Lightning that it may resume within an epoch; the position itself is the data module's."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


def even_batches(num_samples: int, batch_size: int, num_ranks: int) -> list[list[int]]:
    """Batches of about `batch_size` in order, as many for each rank: ranks that meet in a collective operation per
    batch must not wait for one that has none. No sample is left out or given twice."""
    if num_samples < num_ranks:
        raise UserError(f"{num_samples} validation blocks cannot feed {num_ranks} ranks; raise data.validation_samples")
    per_rank = min(-(-num_samples // (batch_size * num_ranks)), num_samples // num_ranks)
    return [part.tolist() for part in np.array_split(np.arange(num_samples), per_rank * num_ranks)]


def collate(samples: list[tuple[Tensor, int]]) -> TokenBatch:
    sequences, domains = zip(*samples, strict=True)
    return TokenBatch(torch.stack(sequences), torch.tensor(domains))


def ignore_stop_signals(worker: int) -> None:
    """Begin a data worker: a signal to all processes, as Ctrl-C is, must not end it before the run is saved."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def workers(number: int) -> dict[str, Any]:
    """The options of a loader that has as many worker processes. Within a process that joblib started, the way in which
    processes start is joblib's own, which a loader's workers cannot take."""
    method = multiprocessing.get_start_method()
    foreign = number > 0 and method not in multiprocessing.get_all_start_methods()
    return {"num_workers": number, "multiprocessing_context": "fork" if foreign else None}
