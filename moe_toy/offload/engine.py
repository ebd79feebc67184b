"""Experts in a few slots of fast memory, filled by reader threads when they are missed."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from time import perf_counter
from typing import NamedTuple

from torch import Tensor

from moe_toy.offload.cache import Cache, Step
from moe_toy.offload.readers import Reader


class Cost(NamedTuple):
    """What fetching experts took."""

    stall: float
    """Seconds that the computation waited for bytes."""
    management: float
    """Seconds in which it was decided what to load and whom to evict."""
    requests: int
    reads: int
    rounds: int
    """Reads one after another: as many as there are threads go on at once."""


@dataclass
class Account:
    """`Cost` so far."""

    stall: float = 0.0
    management: float = 0.0
    requests: int = 0
    reads: int = 0
    rounds: int = 0

    def now(self) -> Cost:
        return Cost(*astuple(self))


class Engine:
    """`num_slots` rows of memory, which the caches of all layers share or divide. Rows are only ever written by
    `reader`, in `threads` threads; with one, the calling thread reads."""

    def __init__(self, reader: Reader, *, row_bytes: int, num_slots: int, threads: int) -> None:
        self.reader, self.row_bytes, self.num_slots, self.threads = reader, row_bytes, num_slots, threads
        self.memory = mmap.mmap(-1, num_slots * row_bytes)
        view = memoryview(self.memory)
        self.buffers = [view[slot * row_bytes : (slot + 1) * row_bytes] for slot in range(num_slots)]
        self.pool = ThreadPoolExecutor(threads, "expert reader") if threads > 1 else None
        self.start([])

    def start(self, caches: Sequence[Cache]) -> None:
        """Begin with the cache of every layer, which agree with each other on who has which slots."""
        self.caches, self.account = caches, Account()

    def fetch(self, layer: int, items: Sequence[int]) -> Iterator[Sequence[Step]]:
        """Different items, in parts that fit into the slots together; each part is there until the next is asked
        for."""
        start = perf_counter()
        account = self.account
        account.requests += len(items)
        for part in _parts(self.caches[layer].look_up(items)):
            missing = [step for step in part if step.missed]
            decided = perf_counter()
            account.management += decided - start
            if missing:
                self._read(missing)
                account.reads += len(missing)
                account.rounds += -(-len(missing) // self.threads)
                account.stall += perf_counter() - decided
            yield part
            start = perf_counter()

    def matrices(self, make: Callable[[mmap.mmap, int], tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """Of every slot, for whichever expert is in it."""
        return [make(self.memory, slot * self.row_bytes) for slot in range(self.num_slots)]

    def close(self) -> None:
        """Let the threads go; the reader stays open."""
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def _read(self, missing: Sequence[Step]) -> None:
        read, buffers = self.reader.read, self.buffers
        if self.pool is None or len(missing) == 1:
            for step in missing:
                read(step.item, buffers[step.slot])
        else:
            for reading in [self.pool.submit(read, step.item, buffers[step.slot]) for step in missing]:
                reading.result()


def _parts(steps: list[Step]) -> Iterator[Sequence[Step]]:
    """Cut where a slot is needed again: what is in it has to be used first."""
    if len({step.slot for step in steps}) == len(steps):
        yield steps
        return
    part: dict[int, Step] = {}
    for step in steps:
        if step.slot in part:
            yield list(part.values())
            part = {}
        part[step.slot] = step
    yield list(part.values())
