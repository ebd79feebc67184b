"""Which expert is in which slot. No bytes: with a reader it is an engine's cache, alone it is its simulator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import chain, cycle
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int, Int64
from torch import Tensor

from moe_toy.offload.policies import Policy, PolicyName, new_policy

Scope = Literal["model", "layer"]
"""One cache for all layers, or one for each."""


class Step(NamedTuple):
    """One expert that a lookup needs. Until its turn the slot may serve another one of the same lookup."""

    item: int
    slot: int
    missed: bool


class Cache(ABC):
    @abstractmethod
    def look_up(self, items: Sequence[int]) -> list[Step]:
        """Different items that are needed together, best first."""

    def holds(self, item: int) -> bool:
        """Whether it would be a hit."""
        raise NotImplementedError(f"nothing can be guessed for {type(self).__name__}")

    def move(self, item: int, slot: int) -> None:
        """From now on an item is in another slot, and its own belongs to the cache no more."""
        raise NotImplementedError(f"nothing can be guessed for {type(self).__name__}")


class ExpertCache(Cache):
    """`capacity` slots for items, which are experts of any layer."""

    def __init__(self, capacity: int, policy: Policy, first_slot: int = 0) -> None:
        if capacity < 1:
            raise ValueError(f"a cache holds at least one expert, not {capacity}")
        self.policy = policy
        self.slots: dict[int, int] = {}
        self.free = list(range(first_slot + capacity - 1, first_slot - 1, -1))

    def look_up(self, items: Sequence[int]) -> list[Step]:
        """None of the items evicts another as long as they fit."""
        slots, policy, steps, kept = self.slots, self.policy, [], set(items)
        for item in items:
            slot = slots.get(item)
            missed = slot is None
            if slot is None:
                slot = self.free.pop() if self.free else slots.pop(policy.evict(kept))
                slots[item] = slot
            policy.use(item)
            steps.append(Step(item, slot, missed))
        return steps

    def holds(self, item: int) -> bool:
        return item in self.slots

    def move(self, item: int, slot: int) -> None:
        self.slots[item] = slot


def lookups_of(expert_ids: Int[Tensor, "layer seq k"], num_experts: int, prompt_length: int = 0) -> list[list[int]]:
    """What a cache is asked for, layer by layer: the experts of a prompt at once, then token by token. An expert of -1
    is none."""
    lookups = []
    if prompt_length:
        prompt = expert_ids[:, :prompt_length].flatten(1).tolist()
        lookups = [[layer * num_experts + e for e in once(ids) if e >= 0] for layer, ids in enumerate(prompt)]
    for token in expert_ids[:, prompt_length:].permute(1, 0, 2).tolist():
        lookups += [[layer * num_experts + e for e in ids if e >= 0] for layer, ids in enumerate(token)]
    return lookups


def once(items: Iterable[int]) -> list[int]:
    """Each item where it comes last."""
    seen: dict[int, None] = {}
    for item in items:
        seen.pop(item, None)
        seen[item] = None
    return list(seen)


def new_caches(
    policy: PolicyName, lookups: Sequence[Sequence[int]], capacity: int, num_layers: int, scope: Scope = "model"
) -> list[ExpertCache]:
    """The cache of every layer, empty: one and the same, or equal shares of `capacity`. `lookups` are those to come, of
    one layer after another, which only "belady" knows."""
    if scope == "model":
        return [ExpertCache(capacity, new_policy(policy, list(chain(*lookups))))] * num_layers
    share = capacity // num_layers
    return [
        ExpertCache(share, new_policy(policy, list(chain(*lookups[layer::num_layers]))), first_slot=layer * share)
        for layer in range(num_layers)
    ]


def simulate(
    policy: PolicyName, lookups: Sequence[Sequence[int]], capacity: int, num_layers: int, scope: Scope = "model"
) -> Int64[np.ndarray, " lookup"]:
    """How many items of every lookup are missed, if caches are empty at first."""
    caches = cycle(new_caches(policy, lookups, capacity, num_layers, scope))
    missed = [sum(step.missed for step in cache.look_up(items)) for cache, items in zip(caches, lookups, strict=False)]
    return np.array(missed, np.int64)
