"""Slots for experts that a guess names: they are read while others are computed, and beside what the cache decides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from typing import NamedTuple


class Reading(NamedTuple):
    """A read that was begun, into a slot that nobody else uses meanwhile."""

    slot: int
    future: Future[None]


class Ahead:
    """At most one guess at a time, of what the next fetch asks for."""

    def __init__(self, slots: Iterable[int]) -> None:
        self.free = list(slots)
        self.guessed: dict[int, Reading] = {}
        """By item, until the next fetch."""
        self.wrong: list[Reading] = []
        """Nobody asked for the item, but it was being read already."""

    def begin(self, items: Iterable[int], read: Callable[[int, int], None], pool: Executor) -> int:
        """Let `pool` call `read(item, slot)` for as many items as there is room for, best first; says for how many."""
        self._collect([reading for reading in self.wrong if reading.future.done()])
        for item, slot in zip(items, self.free[::-1], strict=False):
            self.free.pop()
            self.guessed[item] = Reading(slot, pool.submit(read, item, slot))
        return len(self.guessed)

    def take(self, items: Sequence[int]) -> tuple[dict[int, Reading], int]:
        """Which of the items were guessed, and how many other reads could be called off before they began."""
        taken = {item: self.guessed.pop(item) for item in items if item in self.guessed}
        called_off = [reading for reading in self.guessed.values() if reading.future.cancel()]
        self.free += [reading.slot for reading in called_off]
        self.wrong += [reading for reading in self.guessed.values() if not reading.future.cancelled()]
        self.guessed = {}
        return taken, len(called_off)

    def finish(self) -> None:
        """Forget the guess, and wait until nothing is read."""
        self.take([])
        self._collect(self.wrong)

    def _collect(self, readings: Iterable[Reading]) -> None:
        for reading in list(readings):
            self.wrong.remove(reading)
            self.free.append(reading.slot)
            reading.future.result()
