"""Cache hit rates against golden data, a naive simulator of one capacity, and hand-computed examples."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_toy.metrics import CacheHitRate, cache_hits

POLICIES = ["sch", "lru", "lfu", "belady"]
SEGMENT_LENGTHS = [4, 16, 64, 256]


def sequence_rates(trace, **options):
    hits, requests = cache_hits(trace.expert_ids, trace.num_experts, **options)
    return hits / requests.double()[..., None]


@pytest.mark.parametrize("scope", ["layer", "model"])
@pytest.mark.parametrize("policy", POLICIES)
def test_equals_the_published_code(golden, policy, scope):
    trace, name = golden.trace, "sch" if policy == "sch" else "chr"
    if "in_cache_samples" in golden.arrays:
        samples = torch.from_numpy(golden["in_cache_samples"])
        per_domain = trace.expert_ids.shape[1] // golden.num_domains
        trace = trace.select(torch.cat([samples + d * per_domain for d in range(golden.num_domains)]))
    expected = golden[f"exp_{name}_{scope}"]  # (layer) domain sample variant capacity
    expected = expected if scope == "layer" else expected[None]
    expected = expected.transpose(3, 1, 2, 0, 4).reshape(expected.shape[3], -1, expected.shape[0], expected.shape[4])
    variants = SEGMENT_LENGTHS if policy == "sch" else [1]
    for row, segment_length in enumerate(variants):
        got = sequence_rates(trace, policy=policy, segment_length=segment_length, scope=scope)
        variant = row if policy == "sch" else POLICIES.index(policy) - 1
        np.testing.assert_allclose(got, expected[variant], rtol=0, atol=1e-6)


ONE = [(0,), (1,), (0,), (2,)]
TWO = [(0, 1), (1, 2), (3, 0), (0, 2), (1, 0), (2, 3)]


@pytest.mark.parametrize(
    ("tokens", "num_experts", "policy", "segment_length", "hits"),
    [
        (ONE, 3, "sch", 1, [1, 3, 4]),
        (ONE, 3, "sch", 4, [1, 3, 4]),
        (TWO, 4, "sch", 1, [3, 5, 9, 12]),
        (TWO, 4, "sch", 2, [3, 7, 9, 12]),
        (TWO, 4, "sch", 4, [3, 7, 9, 12]),
        (TWO, 4, "lru", 1, [3, 5, 9, 12]),
        (TWO, 4, "lfu", 1, [3, 5, 9, 12]),
        (TWO, 4, "belady", 1, [3, 6, 9, 12]),
    ],
)
def test_hand_computed(trace_of, *, tokens, num_experts, policy, segment_length, hits):
    ids = trace_of(tokens, num_experts).expert_ids
    got, requests = cache_hits(ids, num_experts, policy=policy, segment_length=segment_length)
    assert got[0, 0].tolist() == hits
    assert requests.item() == len(tokens) * len(tokens[0])


def naive_hits(tokens, capacity, policy, segment_length, cold):
    """One cache of one capacity, as the definition reads: hits and requests."""
    flat = [item for token in tokens for item in token]
    cache, seen, last, uses = set(), set(), {}, {}
    hits = requests = clock = 0
    for i, token in enumerate(tokens):
        for item in token:
            if item in seen:
                hits += item in cache
                requests += 1
            else:
                hits += cold == "hit" and len(seen) < capacity
                requests += cold != "exclude"
                seen.add(item)
        for j, item in enumerate(token):
            ahead = list(token[j + 1 :]) + [y for later in tokens[i + 1 : i + segment_length] for y in later]
            rest = flat[clock + 1 :]
            keys = {
                "sch": lambda y, ahead=ahead: (ahead.count(y), last[y]),
                "lru": lambda y: last[y],
                "lfu": lambda y: (uses[y], last[y]),
                "belady": lambda y, rest=rest: -rest.index(y) if y in rest else -len(flat) - 1,
            }
            if item not in cache and len(cache) == capacity:
                cache.remove(min(cache, key=keys[policy]))
            cache.add(item)
            clock += 1
            last[item] = clock
            uses[item] = uses.get(item, 0) + 1
    return hits, requests


@pytest.mark.parametrize("cold", ["hit", "miss", "exclude"])
@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=15, deadline=None)
@given(
    k=st.integers(1, 3),
    num_experts=st.integers(3, 6),
    seq=st.integers(1, 14),
    segment_length=st.integers(1, 16),
    scope=st.sampled_from(["layer", "model"]),
    seed=st.integers(0, 10**6),
)
def test_equals_naive_simulation(make_trace, *, policy, cold, k, num_experts, seq, segment_length, scope, seed):
    trace = make_trace(batch=1, seq=seq, k=k, num_experts=num_experts, seed=seed)
    got, requests = cache_hits(
        trace.expert_ids, num_experts, policy=policy, segment_length=segment_length, scope=scope, cold=cold
    )
    rows = trace.expert_ids[:, 0].tolist()
    if scope == "model":
        rows = [[[x + layer * num_experts for layer in range(2) for x in rows[layer][t]] for t in range(seq)]]
    for row, tokens in enumerate(rows):
        for capacity in range(1, got.shape[-1] + 1):
            expected = naive_hits(tokens, capacity, policy, segment_length, cold)
            assert (got[0, row, capacity - 1].item(), requests[0, row].item()) == expected


@pytest.mark.parametrize("policy", POLICIES)
def test_deep_stacks_equal_naive_simulation(policy):
    """Enough experts for the top of the stack and three blocks below it, the last not full; many tokens repeat."""
    draw = np.random.default_rng(POLICIES.index(policy))
    ids = draw.random((2, 1, 48, 45)).argsort(-1)[..., :3]
    for t in np.flatnonzero(draw.random(47) < 0.4) + 1:
        ids[:, :, t] = ids[:, :, t - 1]
    options = {"policy": policy, "segment_length": 6, "cold": "miss"}
    hits, requests = cache_hits(torch.from_numpy(ids), 45, scope="model", **options)
    tokens = [[x + 45 * layer for layer in range(2) for x in ids[layer, 0, t].tolist()] for t in range(48)]
    assert len({item for token in tokens for item in token}) > 72
    for capacity in (1, 5, 8, 9, 17, 40, 41, 60, 72, 73, 90):
        expected = naive_hits(tokens, capacity, **options)
        assert (hits[0, 0, capacity - 1].item(), requests.item()) == expected


@pytest.mark.parametrize("scope", ["layer", "model"])
@pytest.mark.parametrize("policy", POLICIES)
def test_larger_caches_hit_more_and_a_full_one_always(make_trace, policy, scope):
    rates = sequence_rates(make_trace(seq=60), policy=policy, scope=scope)
    assert (rates.diff(dim=-1) >= 0).all()
    assert (rates[..., -1] == 1).all()


def test_first_requests_are_misses_or_left_out(trace_of):
    ids = trace_of([(0,), (0,), (1,), (0,)], 2).expert_ids
    rates = {
        cold: (hits[0, 0, 1] / requests[0, 0]).item()
        for cold in ("hit", "miss", "exclude")
        for hits, requests in [cache_hits(ids, 2, policy="lru", cold=cold)]
    }
    assert rates == {"hit": 1, "miss": 0.5, "exclude": 1}


def test_renaming_experts_changes_nothing(make_trace):
    trace = make_trace()
    names = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    renamed = type(trace)(**{**vars(trace), "expert_ids": names[trace.expert_ids]})
    assert torch.equal(sequence_rates(trace, policy="sch"), sequence_rates(renamed, policy="sch"))


def metric_of(trace, **options):
    layers, _, _, k = trace.expert_ids.shape
    metric = CacheHitRate(num_layers=layers, num_experts=trace.num_experts, top_k=k, **options)
    metric.update(trace)
    return metric


def test_scores_average_domains_and_know_their_ratios(make_trace):
    trace = make_trace(domains=2)
    got = metric_of(trace, num_domains=2, policy="lru").compute()
    rates = sequence_rates(trace, policy="lru")
    expected = torch.stack([rates[trace.domain_ids == d].mean(0) for d in range(2)])
    torch.testing.assert_close(got.by_domain, expected)
    torch.testing.assert_close(got.hit_rate, expected.mean(0))
    assert got.capacity.tolist() == [1, 2, 3, 4, 5, 6]
    torch.testing.assert_close(got.at_ratio(1.5), got.hit_rate[:, 2])
    assert got.at_ratio(0.75).isnan().all()  # one and a half experts
    assert got.at_ratio(4).isnan().all()  # more experts than there are


def test_model_cache_ratio_counts_all_layers(make_trace):
    got = metric_of(make_trace(), num_domains=3, scope="model").compute()
    torch.testing.assert_close(got.at_ratio(2), got.hit_rate[:, 7])  # 2 x 2 layers x 2 experts


def test_stride_keeps_every_nth_sequence_of_a_domain_across_batches(make_trace):
    trace = make_trace(batch=12, domains=2)
    strided = CacheHitRate(num_layers=2, num_experts=6, top_k=2, num_domains=2, sample_stride=3)
    for part in torch.arange(12).split(5):
        strided.update(trace.select(part))
    kept = [i for d in range(2) for i in (trace.domain_ids == d).nonzero()[:, 0].tolist()[::3]]
    expected = metric_of(trace.select(torch.tensor(kept)), num_domains=2)
    assert torch.equal(strided.hits, expected.hits)


def test_domain_without_sequences_is_undefined_and_left_out(make_trace):
    got = metric_of(make_trace(domains=1), num_domains=2).compute()
    assert got.by_domain[1].isnan().all()
    torch.testing.assert_close(got.hit_rate, got.by_domain[0])
