"""Which item leaves, on sequences short enough to follow by hand."""

import pytest

from moe_toy.offload.cache import ExpertCache, Step, lookups_of, once, simulate
from moe_toy.offload.policies import Belady, Lfu, Lru, Random, new_policy

A, B, C, D = range(4)


def missed(policy, uses, capacity):
    cache = ExpertCache(capacity, policy)
    return "".join("ABCD"[step.item] for item in uses for step in cache.look_up([item]) if step.missed)


def test_lru_evicts_what_was_used_longest_ago():
    assert missed(Lru(), [A, B, A, C, B, A], 2) == "ABCBA"


def test_lfu_evicts_what_was_used_least_and_remembers_the_evicted():
    assert missed(Lfu(), [A, A, B, C, B, C, B, A], 2) == "ABCBCA"


def test_belady_evicts_what_is_needed_last():
    uses = [A, B, C, A, B, D, A]
    assert missed(Belady(uses), uses, 2) == "ABCBD"


def test_belady_refuses_another_sequence_than_recorded():
    with pytest.raises(ValueError, match="recorded"):
        missed(Belady([A, B]), [A, C], 2)
    with pytest.raises(ValueError, match="recorded"):
        missed(Belady([A]), [A, A], 2)


def test_random_evicts_any_and_is_repeatable():
    uses = [A, B, C, D] * 50
    assert missed(Random(1), uses, 3) == missed(Random(1), uses, 3)
    victims = set()
    for seed in range(30):
        policy = Random(seed)
        for item in (A, B, C):
            policy.use(item)
        victims.add(policy.evict({B}))
    assert victims == {A, C}


@pytest.mark.parametrize("name", ["lru", "lfu", "belady", "random"])
def test_items_of_a_lookup_do_not_evict_each_other(name):
    lookups = [[A, B], [C, B], [D, A], [B, A], [C, D]]
    cache = ExpertCache(2, new_policy(name, [item for items in lookups for item in items]))
    for items in lookups:
        steps = cache.look_up(items)
        assert len({step.slot for step in steps}) == len(items)
        assert set(cache.slots) == set(items)


def test_a_lookup_that_does_not_fit_uses_slots_again():
    cache = ExpertCache(2, Lru())
    assert cache.look_up([A, B, C]) == [Step(A, 0, True), Step(B, 1, True), Step(C, 0, True)]
    assert set(cache.slots) == {B, C}


def test_many_uses_do_not_make_the_heap_grow():
    policy = Lfu()
    for _ in range(5000):
        policy.use(A)
    assert len(policy.heap) < 200
    policy.use(B)
    assert policy.evict(()) == B


def test_an_empty_cache_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        ExpertCache(0, Lru())


@pytest.mark.parametrize("prompt", [0, 6])
@pytest.mark.parametrize("scope", ["model", "layer"])
@pytest.mark.parametrize("policy", ["lru", "lfu", "belady"])
def test_the_simulator_misses_what_the_metrics_count(policy, scope, prompt):
    import torch

    from moe_toy.metrics import cache_hits

    layers, experts, k = 2, 5, 2
    ids = torch.rand(layers, 20, experts, generator=torch.Generator().manual_seed(0)).argsort(-1)[..., :k]
    options = {"policy": policy, "scope": scope, "cold": "miss", "order": "layer"}
    hits, requests = cache_hits(ids[:, None], experts, **options, prompt_lengths=torch.tensor([prompt]))
    caches = layers if scope == "layer" else 1
    for capacity in range(k, hits.shape[-1] + 1):
        missed = simulate(policy, lookups_of(ids, experts, prompt), caches * capacity, layers, scope)
        answers = missed.reshape(-1, layers)[min(prompt, 1) :]  # the prompt is one step
        assert answers.sum() == (requests.sum() - hits[..., capacity - 1].sum()).item()


def test_lookups_go_layer_by_layer_and_a_prompt_asks_once():
    import torch

    expert_ids = torch.tensor([[[0, 1], [1, 2], [3, 0]], [[2, 3], [2, 0], [1, 2]]])
    assert lookups_of(expert_ids, 4, 2) == [[0, 1, 2], [7, 6, 4], [3, 0], [5, 6]]
    assert once([5, 1, 5, 2]) == [1, 5, 2]
    assert simulate("lru", lookups_of(expert_ids, 4, 2), 8, 2).tolist() == [3, 3, 1, 1]
