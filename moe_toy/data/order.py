"""Which sequence is training sample i: a pure function of (seed, i)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from moe_toy.errors import UserError

BLOCK = 1024


class TrainingOrder:
    """`order[i]` is the (domain, sequence) of training sample i, for any i >= 0, asked in any order.

    Samples come in blocks of 1024. In each block every domain has the same number of places, its share of `weights`
    (rounded by largest remainder), shuffled by (seed, block). Counted over all blocks, the j-th place of a domain
    of n sequences takes element j mod n of a permutation drawn from (seed, domain, j div n): every sequence is seen
    once before any is seen twice, however small the domain.

    Nothing else enters: not the batch size, the number of ranks or workers, nor what was asked before. So a resumed
    run needs only the number of samples it has seen, and two runs of an ablation see the same text.
    """

    def __init__(self, *, seed: int, sizes: Sequence[int], weights: Sequence[float]) -> None:
        self.seed = seed
        self.sizes = tuple(sizes)
        self.places = _places(weights)
        if empty := [domain for domain, size in enumerate(sizes) if size < 1 and self.places[domain]]:
            raise UserError(f"domain number {empty[0]} has no training sequence; add text or set its weight to 0")

    @property
    def identity(self) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
        """Orders with the same one give the same samples."""
        return self.seed, self.sizes, self.places

    def __len__(self) -> int:
        """Samples of one pass: as many as there are sequences of domains that are drawn. Numbers beyond go on to the
        next pass."""
        return sum(size for size, places in zip(self.sizes, self.places, strict=True) if places)

    def __getitem__(self, sample: int) -> tuple[int, int]:
        block, position = divmod(sample, BLOCK)
        domains, ranks = _shuffled_places(self.seed, block, self.places)
        domain = int(domains[position])
        draw = block * self.places[domain] + int(ranks[position])
        epoch, element = divmod(draw, self.sizes[domain])
        return domain, int(_permutation(self.sizes[domain], self.seed, 1, domain, epoch)[element])


def _places(weights: Sequence[float]) -> tuple[int, ...]:
    shares = BLOCK * np.asarray(weights, dtype=np.float64) / np.sum(weights)
    places = np.floor(shares).astype(int)
    largest_remainder = np.argsort(places - shares, kind="stable")
    places[largest_remainder[: BLOCK - places.sum()]] += 1
    for weight, number in zip(weights, places, strict=True):
        if weight > 0 and number == 0:
            raise UserError(
                f"weight {weight} is less than 1/{BLOCK} of their sum {sum(weights)}; raise it or set it to 0"
            )
    return tuple(places.tolist())


@lru_cache(maxsize=8)
def _shuffled_places(seed: int, block: int, places: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The domain of each place of a block, and how many places of that domain stand before it."""
    domains = np.repeat(np.arange(len(places)), places)[_permutation(BLOCK, seed, 0, block)]
    ranks = np.empty(BLOCK, dtype=np.int64)
    for domain, number in enumerate(places):
        ranks[domains == domain] = np.arange(number)
    return domains, ranks


@lru_cache(maxsize=64)
def _permutation(size: int, *key: int) -> np.ndarray:
    # Ranks of raw Philox numbers: unlike `Generator.permutation`, numpy promises never to change them.
    numbers = np.random.Philox(np.random.SeedSequence(key)).random_raw(size)
    return np.argsort(numbers, kind="stable")


def domain_weights(
    given: Mapping[str | int, float] | None, domains: Sequence[str], left_out: Sequence[str] = ()
) -> list[float]:
    """How often each domain is drawn, in proportion; None: equally often. Raises `UserError` for what is no weight, and
    for a domain without one: to leave it out takes a 0. Those that `data.domains` has left out may have weights."""
    if given is None:
        return [1.0] * len(domains)
    named = {str(name): weight for name, weight in given.items()}  # YAML reads 2020 as a number
    named = {name: weight for name, weight in named.items() if name in domains or name not in left_out}
    if unknown := [name for name in named if name not in domains]:
        raise UserError(f"data.weights names {', '.join(unknown)}; the domains are {', '.join(domains)}")
    if missing := [domain for domain in domains if domain not in named]:
        raise UserError(f"data.weights has no weight for {', '.join(missing)}; give it one, 0 to leave it out")
    weights = [float(named[domain]) for domain in domains]
    if not all(weight >= 0 for weight in weights) or not 0 < sum(weights) < float("inf"):
        raise UserError(f"data.weights={dict(given)} must be finite, not negative and not all 0")
    return weights
