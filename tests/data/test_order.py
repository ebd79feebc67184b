"""TrainingOrder: shares, coverage, purity."""

from collections import Counter

import pytest

from moe_toy.data.order import BLOCK, TrainingOrder
from moe_toy.errors import UserError


def order(seed=1, sizes=(7, 50, 300), weights=(1.0, 1.0, 2.0)):
    return TrainingOrder(seed=seed, sizes=sizes, weights=weights)


def test_each_block_holds_every_domain_by_weight():
    samples = order()
    for block in range(3):
        counts = Counter(samples[block * BLOCK + i][0] for i in range(BLOCK))
        assert counts == {0: BLOCK // 4, 1: BLOCK // 4, 2: BLOCK // 2}


def test_places_are_rounded_by_largest_remainder():
    assert order(weights=(1.0, 1.0, 1.0)).places == (342, 341, 341)
    assert sum(order(sizes=(5,) * 11, weights=(1.0,) * 11).places) == BLOCK


def test_every_sequence_is_seen_once_per_pass():
    samples = order()
    drawn = [sequence for domain, sequence in (samples[i] for i in range(4 * BLOCK)) if domain == 2]
    passes = [drawn[start : start + 300] for start in range(0, len(drawn) - 300, 300)]
    assert len(passes) > 3
    assert all(sorted(sequences) == list(range(300)) for sequences in passes)
    assert passes[0] != passes[1]


def test_random_access_equals_sequential_access():
    samples = order()
    sequential = [samples[i] for i in range(3 * BLOCK)]
    backwards = order()
    assert [backwards[i] for i in reversed(range(3 * BLOCK))] == sequential[::-1]
    assert order()[2_000_000_000] == order()[2_000_000_000]


def test_seeds_give_unrelated_orders():
    first, second = order(seed=1), order(seed=2)
    same = sum(first[i] == second[i] for i in range(BLOCK))
    assert same < 0.05 * BLOCK  # by chance 1/4 * 1/4 * 1/7 + 1/4 * 1/4 * 1/50 + 1/2 * 1/2 * 1/300


def test_domains_of_equal_size_are_shuffled_differently():
    samples = order(sizes=(300, 300), weights=(1.0, 1.0))
    drawn = {0: [], 1: []}
    for i in range(500):
        domain, sequence = samples[i]
        drawn[domain].append(sequence)
    assert drawn[0][:100] != drawn[1][:100]


def test_a_pass_is_of_the_domains_that_are_drawn():
    assert len(order(sizes=(10, 990), weights=(1.0, 0.0))) == 10


def test_a_domain_without_weight_is_never_drawn():
    samples = order(sizes=(0, 5, 5), weights=(0.0, 1.0, 1.0))
    assert {samples[i][0] for i in range(BLOCK)} == {1, 2}


def test_a_weight_too_small_for_a_place_is_refused():
    with pytest.raises(UserError, match="less than 1/1024"):
        order(weights=(1e-6, 1.0, 1.0))
