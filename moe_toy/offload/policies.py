"""Which expert leaves a full cache. The engine and the simulator decide by the same objects."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Container, Sequence
from heapq import heapify, heappop, heappush
from typing import Literal

PolicyName = Literal["lru", "lfu", "belady", "random"]
Key = tuple[int, ...]


class Policy(ABC):
    """Told of every use of an item, in order; items that were used and not evicted since are in the cache."""

    @abstractmethod
    def use(self, item: int) -> None:
        """Note the use of an item that is in the cache from now on."""

    @abstractmethod
    def evict(self, kept: Container[int]) -> int:
        """Choose an item, forget it and return it: one of `kept` only if there is no other."""


class Lru(Policy):
    """The least recently used."""

    def __init__(self) -> None:
        self.items: dict[int, None] = {}
        """Last used last."""

    def use(self, item: int) -> None:
        self.items.pop(item, None)
        self.items[item] = None

    def evict(self, kept: Container[int]) -> int:
        victim = next((item for item in self.items if item not in kept), None)
        victim = next(iter(self.items)) if victim is None else victim
        del self.items[victim]
        return victim


class SmallestKey(Policy):
    """The item with the smallest key, which changes only when it is used; of equals the one with the lower number."""

    def __init__(self) -> None:
        self.keys: dict[int, Key] = {}
        self.heap: list[tuple[Key, int]] = []
        """Holds every item with its key, and keys that are out of date."""

    @abstractmethod
    def key(self, item: int) -> Key: ...

    def use(self, item: int) -> None:
        self.keys[item] = key = self.key(item)
        heappush(self.heap, (key, item))
        if len(self.heap) > 8 * len(self.keys) + 64:
            self.heap = [(key, item) for item, key in self.keys.items()]
            heapify(self.heap)

    def evict(self, kept: Container[int]) -> int:
        aside: list[tuple[Key, int]] = []
        victim = None
        while self.heap and victim is None:
            key, item = heappop(self.heap)
            if self.keys.get(item) == key:
                if item in kept:
                    aside.append((key, item))
                else:
                    victim = item
        if victim is None:
            _, victim = aside.pop(0)
        for entry in aside:
            heappush(self.heap, entry)
        del self.keys[victim]
        return victim


class Lfu(SmallestKey):
    """The least often used since the beginning, in the cache or not; of equals the least recently used."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.uses: dict[int, int] = {}

    def key(self, item: int) -> Key:
        self.now += 1
        self.uses[item] = uses = self.uses.get(item, 0) + 1
        return uses, self.now


class Belady(SmallestKey):
    """The one that is needed last, as a recording of all uses tells."""

    def __init__(self, uses: Sequence[int]) -> None:
        super().__init__()
        self.recorded = uses
        self.now = 0
        self.next_use = [len(uses)] * len(uses)
        coming: dict[int, int] = {}
        for now in range(len(uses) - 1, -1, -1):
            self.next_use[now] = coming.get(uses[now], len(uses))
            coming[uses[now]] = now

    def key(self, item: int) -> Key:
        if self.now == len(self.recorded) or item != self.recorded[self.now]:
            raise ValueError(f"use {self.now} is of item {item}, which is not what was recorded")
        self.now += 1
        return (-self.next_use[self.now - 1],)


class Random(Policy):
    """Any, with equal chances."""

    def __init__(self, seed: int = 0) -> None:
        self.draw = random.Random(seed)
        self.items: list[int] = []
        self.place: dict[int, int] = {}

    def use(self, item: int) -> None:
        if item not in self.place:
            self.place[item] = len(self.items)
            self.items.append(item)

    def evict(self, kept: Container[int]) -> int:
        free = [item for item in self.items if item not in kept] or self.items
        victim = self.draw.choice(free)
        place, last = self.place.pop(victim), self.items.pop()
        if last != victim:
            self.items[place], self.place[last] = last, place
        return victim


def new_policy(name: PolicyName, recorded: Sequence[int] = ()) -> Policy:
    """`recorded`: all uses to come, which only "belady" reads."""
    if name == "belady":
        return Belady(recorded)
    return {"lru": Lru, "lfu": Lfu, "random": Random}[name]()
