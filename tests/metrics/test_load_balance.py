"""Balance over everything, per sequence and per segment."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from moe_toy.metrics import SRP, LoadBalance, activation_rate_std
from moe_toy.routing import RoutingTrace


def scores(trace, **options):
    layers = trace.expert_ids.shape[0]
    metric = LoadBalance(num_layers=layers, num_experts=trace.num_experts, **options)
    metric.update(trace)
    return metric.compute()


def test_even_over_the_sequence_but_not_within_segments(trace_of):
    got = scores(trace_of([(0,), (0,), (1,), (1,)], 2), segment_length=2).overall
    assert [got.max_violation, got.cv, got.sequence_max_violation, got.sequence_cv] == [0, 0, 0, 0]
    assert got.entropy == 1
    assert got.segment_cv == pytest.approx(2 / 3)  # segments 00 and 11 score 1, 01 scores 0


def test_one_expert_for_everything(trace_of):
    got = scores(trace_of([(2,)] * 5, 4), segment_length=3).overall
    assert got.max_violation == 3
    assert got.cv == pytest.approx(3**0.5)
    assert got.segment_cv == pytest.approx(3**0.5)
    assert got.entropy == 0
    assert (got.dead_experts, got.dead_fraction) == (3, 0.75)
    assert got.load.tolist() == [[0, 0, 1, 0]]


def test_equals_numpy(make_trace):
    trace = make_trace(batch=8)
    got = scores(trace, num_domains=3, segment_length=5).by_domain
    for domain in range(3):
        members = trace.expert_ids[:, trace.domain_ids == domain].numpy()
        for layer in range(2):
            counts = np.bincount(members[layer].flatten(), minlength=6)
            local = [np.bincount(sequence.flatten(), minlength=6) for sequence in members[layer]]
            segments = [
                np.bincount(sequence[s : s + 5].flatten(), minlength=6)
                for sequence in members[layer]
                for s in range(36)
            ]
            at = domain, layer
            assert got.cv[at] == pytest.approx(counts.std() / counts.mean())
            assert got.max_violation[at] == pytest.approx(counts.max() / counts.mean() - 1)
            assert got.largest_share[at] == pytest.approx((members[layer] == counts.argmax()).any(-1).mean())
            assert got.sequence_cv[at] == pytest.approx(np.mean([c.std() / c.mean() for c in local]))
            assert got.sequence_max_violation[at] == pytest.approx(np.mean([c.max() / c.mean() - 1 for c in local]))
            assert got.segment_cv[at] == pytest.approx(np.mean([c.std() / c.mean() for c in segments]))


def test_undefined_without_tokens(make_trace):
    trace = make_trace(batch=0)
    assert all(value.isnan().all() for value in vars(scores(trace).overall).values())


def test_segment_longer_than_sequences_is_undefined(make_trace):
    got = scores(make_trace(seq=5), num_domains=3, segment_length=6).overall
    assert got.segment_cv.isnan().all()
    assert not got.sequence_cv.isnan().any()


def test_spread_of_activation_rates_equals_the_published_code(golden):
    for row, segment_length in enumerate(golden.srp_lengths):
        metric = SRP(**golden.sizes, segment_length=segment_length)
        metric.update(golden.trace)
        spread = activation_rate_std(metric.compute().expert.activation_rate)
        assert spread == pytest.approx(golden["exp_act_r_std"][row], abs=1e-6)


def test_trace_without_domains_is_one_domain(make_trace):
    trace = make_trace()
    pooled = scores(type(trace)(**{**vars(trace), "domain_ids": None})).overall
    by_domain = scores(trace, num_domains=3).overall
    torch.testing.assert_close(pooled.cv, by_domain.cv, rtol=0, atol=0)


def test_effective_experts_are_those_that_evenly_used_would_have_the_entropy():
    """Of loads 1/2, 1/4, 1/4, 0: 2^1.5; of one expert alone: 1; of all evenly: all."""
    loads = ([0, 0, 1, 2], [3, 3, 3, 3], [0, 1, 2, 3])
    for chosen, expected in zip(loads, (2**1.5, 1.0, 4.0), strict=True):
        metric = LoadBalance(num_layers=1, num_experts=4, segment_length=1)
        ids = torch.tensor(chosen).view(1, 1, 4, 1)
        metric.update(RoutingTrace(expert_ids=ids, token_ids=ids[0, ..., 0], num_experts=4, layer_ids=(0,)))
        assert metric.compute().overall.effective_experts.item() == pytest.approx(expected)


def test_what_uses_no_expert_is_neither_even_nor_uneven(trace_of, make_trace):
    """Two of the four segments hold no expert, and count for nothing."""
    got = scores(replace(trace_of([(-1,), (-1,), (-1,), (0,), (1,)], 2), padded=True), segment_length=2).overall
    assert got.segment_cv == pytest.approx(1 / 2)  # of (none, 0), (0, 1)
    idle = make_trace(batch=2)
    idle = replace(idle, expert_ids=idle.expert_ids.index_fill(1, torch.tensor(0), -1), padded=True)
    alone, beside = (scores(trace, num_domains=3).overall for trace in (idle.select(slice(1, 2)), idle))
    for name in ("sequence_cv", "sequence_max_violation", "segment_cv"):
        torch.testing.assert_close(getattr(beside, name), getattr(alone, name), rtol=0, atol=0)
        assert getattr(scores(idle.select(slice(1)), num_domains=3).overall, name).isnan().all()
