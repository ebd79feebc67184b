"""Experts in a few slots of fast memory, filled by reader threads when they are missed."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple, dataclass
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from moe_toy.offload.ahead import Ahead, Reading
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
    """Of experts that were neither in the cache nor guessed."""
    rounds: int
    """Reads one after another: as many as there are threads go on at once."""
    speculative_reads: int
    """Of experts that were guessed, rightly or not."""
    speculative_hits: int
    """Experts that were not in the cache, but guessed."""


@dataclass
class Account:
    """`Cost` so far."""

    stall: float = 0.0
    management: float = 0.0
    requests: int = 0
    reads: int = 0
    rounds: int = 0
    speculative_reads: int = 0
    speculative_hits: int = 0

    def now(self) -> Cost:
        return Cost(*astuple(self))


class Engine:
    """`num_slots` rows of memory, which the caches of all layers share or divide. Rows are only ever written by
    `reader`, in `threads` threads; with one, the calling thread reads, but for what it guesses.

    The last `ahead` slots are for guesses (`guess`), and no cache may use them. An expert that was guessed rightly
    changes places with the slot that its cache gave it, so that caches hold at any time what they hold without guesses.
    Slots are pages of main memory, or, with a `device`, memory of that.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        row_bytes: int,
        num_slots: int,
        threads: int,
        ahead: int = 0,
        device: torch.device | None = None,
    ) -> None:
        self.reader, self.row_bytes, self.num_slots, self.threads = reader, row_bytes, num_slots, threads
        self.memory: mmap.mmap | Tensor
        if device is None:
            self.memory = resident_pages(num_slots * row_bytes)
        else:
            self.memory = torch.empty(num_slots * row_bytes, dtype=torch.uint8, device=device)
        view = self.memory if isinstance(self.memory, Tensor) else memoryview(self.memory)
        self.buffers = [view[slot * row_bytes : (slot + 1) * row_bytes] for slot in range(num_slots)]
        self.pool = ThreadPoolExecutor(threads, "expert reader") if threads > 1 or ahead else None
        self.ahead = Ahead(range(num_slots - ahead, num_slots)) if ahead else None
        self.start([])

    def start(self, caches: Sequence[Cache]) -> None:
        """Begin with the cache of every layer, which agree with each other on who has which slots."""
        if self.ahead is not None:
            self.ahead.finish()
        self.caches, self.account = caches, Account()

    def fetch(self, layer: int, items: Sequence[int]) -> Iterator[Sequence[Step]]:
        """Different items, in parts that fit into the slots together; each part is there until the next is asked
        for."""
        start = perf_counter()
        account = self.account
        account.requests += len(items)
        steps, guessed = self._served_ahead(layer, self.caches[layer].look_up(items))
        for part in _parts(steps):
            missing = [step for step in part if step.missed]
            decided = perf_counter()
            account.management += decided - start
            if missing or guessed:
                self._read(missing)
                while guessed:
                    guessed.pop().future.result()
                account.reads += len(missing)
                account.rounds += -(-len(missing) // self.threads)
                account.stall += perf_counter() - decided
            yield part
            start = perf_counter()

    def guess(self, layer: int, choose: Callable[[], Sequence[int]]) -> None:
        """Begin to read what the next fetch, that of `layer`, may ask for: the items that `choose` names, best first,
        as far as they are not in its cache."""
        start = perf_counter()
        absent = [item for item in choose() if not self.caches[layer].holds(item)]
        self.account.speculative_reads += self.ahead.begin(absent, self._read_one, self.pool)
        self.account.management += perf_counter() - start

    def matrices(self, make: Callable[[mmap.mmap | Tensor, int], tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """Of every slot, for whichever expert is in it."""
        return [make(self.memory, slot * self.row_bytes) for slot in range(self.num_slots)]

    def close(self) -> None:
        """Let the threads go; the reader stays open."""
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def _served_ahead(self, layer: int, steps: list[Step]) -> tuple[list[Step], list[Reading]]:
        """The steps, of which those that were guessed are no misses any more, and the reads to wait for."""
        if self.ahead is None:
            return steps, []
        taken, called_off = self.ahead.take([step.item for step in steps if step.missed])
        self.account.speculative_reads -= called_off
        self.account.speculative_hits += len(taken)
        for number, (item, slot, _) in enumerate(steps):
            if item in taken:
                self.caches[layer].move(item, taken[item].slot)
                self.ahead.free.append(slot)
                steps[number] = Step(item, taken[item].slot, missed=False)
        return steps, list(taken.values())

    def _read(self, missing: Sequence[Step]) -> None:
        if self.threads == 1 or len(missing) == 1:
            self._read_all(missing)
        else:  # each thread its share: to hand over rows one by one costs a fifth of the speed at 48 KiB
            shares = [missing[first :: self.threads] for first in range(min(self.threads, len(missing)))]
            for reading in [self.pool.submit(self._read_all, share) for share in shares]:
                reading.result()

    def _read_all(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self._read_one(step.item, step.slot)

    def _read_one(self, item: int, slot: int) -> None:
        self.reader.read(item, self.buffers[slot])


def resident_pages(num_bytes: int) -> mmap.mmap:
    """Memory of which every page is there already, in huge pages where the system gives them: else the first read into
    each page would be counted with the time that it takes to find that page."""
    memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(AttributeError, OSError):  # other systems, and kernels built without
        memory.madvise(mmap.MADV_HUGEPAGE)
    np.frombuffer(memory, np.uint8)[:: mmap.PAGESIZE] = 0
    return memory


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
