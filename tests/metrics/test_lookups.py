"""Caches as engines run them, layer by layer and after a prompt, against a naive simulator and examples by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_toy.errors import UserError
from moe_toy.metrics import cache_hits

POLICIES = ["sch", "lru", "lfu", "belady"]


def naive_hits_by_layer(layers, capacity, policy, segment_length, *, prompt=0, sizes=None):
    """One cache of all layers as an engine runs it, everything cold: hits and requests after the prompt, which is read
    as one token. `capacity` is in units of mean `sizes`, by layer."""
    seq = len(layers[0])
    spans = [range(prompt)] * bool(prompt) + [[t] for t in range(prompt, seq)]
    steps = []  # (token, experts)
    for number, span in enumerate(spans):
        for layer, tokens in enumerate(layers):
            asked = [(layer, expert) for t in span for expert in tokens[t] if expert >= 0]
            steps.append((number, [x for i, x in enumerate(asked) if x not in asked[i + 1 :]]))
    size = sizes or [1] * len(layers)
    room = capacity * sum(size) / len(size)
    cache, last, uses = [], {}, {}
    hits = requests = clock = 0
    for i, (token, asked) in enumerate(steps):
        if token >= bool(prompt):
            hits += sum(item in cache for item in asked)
            requests += len(asked)
        seen = [x for later, items in steps[i + 1 :] if later < token + segment_length for x in items]
        rest = [x for _, items in steps[i + 1 :] for x in items]
        for item in asked:
            clock += 1
            last[item] = clock
            uses[item] = uses.get(item, 0) + 1
        keys = {
            "sch": lambda y, seen=seen: (seen.count(y), last[y]),
            "lru": lambda y: last[y],
            "lfu": lambda y: (uses[y], last[y]),
            "belady": lambda y, rest=rest: (-rest.index(y) if y in rest else -len(rest) - 1, last[y]),
        }
        others = sorted((y for y in cache if y not in asked), key=keys[policy])
        while others and sum(size[layer] for layer, _ in [*others, *asked]) > room:
            others.pop(0)
        cache = [*others, *asked]
    return hits, requests


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=15, deadline=None)
@given(
    k=st.integers(1, 3),
    num_experts=st.integers(3, 5),
    num_layers=st.integers(2, 3),
    seq=st.integers(1, 9),
    prompt=st.integers(0, 4),
    segment_length=st.integers(1, 10),
    absent=st.floats(0, 0.5),
    seed=st.integers(0, 10**6),
)
def test_layer_order_equals_an_engine(*, policy, k, num_experts, num_layers, seq, prompt, segment_length, absent, seed):
    """Also where some tokens have fewer experts."""
    draw = np.random.default_rng(seed)
    ids = draw.random((num_layers, seq, num_experts)).argsort(-1)[..., :k]
    ids[draw.random(ids.shape) < absent] = -1
    prompt = min(prompt, seq)
    got, requests = cache_hits(
        torch.from_numpy(ids)[:, None],
        num_experts,
        policy=policy,
        segment_length=segment_length,
        scope="model",
        cold="miss",
        order="layer",
        prompt_lengths=torch.tensor([prompt]),
    )
    most = max(len(set(layer[:prompt].flatten()) - {-1}) for layer in ids)
    for capacity in range(max(k, most), num_layers * num_experts + 1):
        expected = naive_hits_by_layer(ids.tolist(), capacity, policy, segment_length, prompt=prompt)
        assert (got[0, 0, capacity - 1].item(), requests.item()) == expected


@pytest.mark.parametrize("prompt", [0, 5])
@pytest.mark.parametrize("policy", POLICIES)
def test_deep_stacks_in_layer_order_equal_an_engine(policy, prompt):
    """Enough experts for several blocks of the stack; many tokens repeat the last one."""
    draw = np.random.default_rng(POLICIES.index(policy))
    ids = draw.random((3, 40, 30)).argsort(-1)[..., :3]
    for t in np.flatnonzero(draw.random(39) < 0.4) + 1:
        ids[:, t] = ids[:, t - 1]
    lookups = {"order": "layer", "prompt_lengths": torch.tensor([prompt])}
    options = {"policy": policy, "segment_length": 6}
    got, requests = cache_hits(torch.from_numpy(ids)[:, None], 30, scope="model", cold="miss", **lookups, **options)
    for capacity in (15, 16, 40, 41, 60, 72, 73, 90):
        expected = naive_hits_by_layer(ids.tolist(), capacity, **options, prompt=prompt)
        assert (got[0, 0, capacity - 1].item(), requests.item()) == expected


@settings(max_examples=30, deadline=None)
@given(k=st.integers(1, 3), layers=st.integers(2, 3), seed=st.integers(0, 10**6), prompt=st.integers(0, 3))
def test_in_layer_order_belady_is_the_bound(make_trace, *, k, layers, seed, prompt):
    trace = make_trace(batch=2, seq=12, k=k, layers=layers, num_experts=5, seed=seed)
    hits = {
        policy: cache_hits(
            trace.expert_ids,
            5,
            policy=policy,
            scope="model",
            cold="miss",
            order="layer",
            prompt_lengths=torch.full((2,), prompt),
        )[0][..., k - 1 :]
        for policy in POLICIES
    }
    assert all((hits["belady"] >= hits[policy]).all() for policy in POLICIES)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("cold", ["hit", "miss", "exclude"])
def test_one_layer_knows_no_order_of_layers(make_trace, policy, cold):
    trace = make_trace(layers=1, k=1)
    by_token, by_layer = (
        cache_hits(trace.expert_ids, 6, policy=policy, scope="model", cold=cold, order=order)
        for order in ("token", "layer")
    )
    assert torch.equal(by_token[0], by_layer[0])
    assert torch.equal(by_token[1], by_layer[1])


def test_in_layer_order_lru_below_the_cycle_of_a_token_finds_nothing():
    """Every token uses the same experts: a cache with room for all of them hits always. With room for all but one, the
    second expert of a layer is there when it is looked up, and then evicted for the first; any smaller never hits."""
    ids = torch.tensor([[0, 1], [2, 3], [4, 5]])[:, None, None].expand(3, 1, 20, 2)
    options = {"policy": "lru", "scope": "model", "cold": "miss"}
    by_layer, requests = cache_hits(ids, 6, order="layer", **options)
    assert by_layer[0, 0].tolist() == [0] * 4 + [19 * 3] + [19 * 6] * 13
    assert requests.item() == 20 * 6
    assert cache_hits(ids, 6, order="token", **options)[0][0, 0, :6].tolist() == [19 * i for i in range(1, 7)]


def test_capacity_is_in_experts_of_mean_size_where_layers_differ():
    """LRU in bytes: experts of layer 1 are three times as large."""
    ids = torch.tensor([[[0], [1], [0], [0], [1]], [[0], [0], [1], [0], [1]]])[:, None]
    got, _ = cache_hits(ids, 2, policy="lru", scope="model", cold="miss", order="layer", expert_bytes=[10, 30])
    tokens = ids[:, 0].tolist()
    expected = [naive_hits_by_layer(tokens, c, "lru", 1, sizes=[10, 30])[0] for c in range(2, 5)]
    assert got[0, 0, 1:].tolist() == expected
    of_one_size, _ = cache_hits(ids, 2, policy="lru", scope="model", cold="miss", order="layer")
    assert not torch.equal(got, of_one_size)


@pytest.mark.parametrize("sizes", [[10], [10, 0], [10, 2**60], [10, 2**70]], ids=str)
def test_sizes_that_are_not_those_of_the_layers_are_refused(sizes):
    """The compiled loops would read beyond them, or their sums would overflow."""
    with pytest.raises(UserError, match="for 2 layers; give the bytes of an expert in each"):
        cache_hits(torch.zeros(2, 1, 4, 1).long(), 2, policy="lru", scope="model", expert_bytes=sizes)


def test_a_prompt_warms_a_cache_of_one_layer_whole(trace_of):
    """An engine reads it in one go: all its experts are there for the first token of the answer."""
    ids = trace_of([(0,), (1,), (2,), (0,), (0,), (3,)], 4).expert_ids
    hits, requests = cache_hits(ids, 4, policy="lru", cold="miss", prompt_lengths=torch.tensor([3]))
    assert hits[0, 0].tolist() == [2, 2, 2, 2]
    assert requests.item() == 3
