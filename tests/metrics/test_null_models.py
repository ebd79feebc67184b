"""Null models keep what they promise to keep, and destroy the rest."""

from dataclasses import replace

import pytest
import torch

from moe_toy.metrics import SRP, null_scores, shuffle
from moe_toy.metrics.load_balance import expert_counts


def srp(trace):
    metric = SRP(num_layers=trace.expert_ids.shape[0], num_experts=trace.num_experts, num_domains=3, segment_length=8)
    metric.update(trace)
    return metric.compute().layer.srp


@pytest.mark.parametrize("within", ["corpus", "domain", "sequence", "token"])
def test_tokens_move_with_the_routing_of_all_layers(make_trace, within):
    trace = make_trace()
    shuffled = shuffle(trace, within)

    def rows(trace):
        by_token = trace.expert_ids.permute(1, 2, 0, 3).flatten(0, 1).flatten(1)
        return sorted(torch.cat([trace.token_ids.flatten()[:, None], by_token], 1).tolist())

    assert rows(shuffled) == rows(trace)
    assert not torch.equal(shuffled.expert_ids, trace.expert_ids)


def test_sequences_keep_their_balance(make_trace):
    trace = make_trace()
    kept = expert_counts(shuffle(trace, "sequence").expert_ids, 6)
    assert torch.equal(kept, expert_counts(trace.expert_ids, 6))


def test_domains_keep_their_balance(make_trace):
    trace = make_trace()
    before, after = (expert_counts(t.expert_ids, 6) for t in (trace, shuffle(trace, "domain")))
    for domain in range(3):
        members = trace.domain_ids == domain
        assert torch.equal(before[members].sum(0), after[members].sum(0))
    assert not torch.equal(before, after)


def test_token_ids_keep_their_places(make_trace):
    trace = make_trace()
    assert torch.equal(shuffle(trace, "token").token_ids, trace.token_ids)


def test_routing_that_only_depends_on_the_token_is_its_own_null_model(make_trace):
    trace = make_trace()
    by_token = make_trace(batch=1, seq=20).expert_ids[:, 0]
    trace = replace(trace, expert_ids=by_token[:, trace.token_ids])
    got = null_scores(trace, srp)
    torch.testing.assert_close(got.token, got.raw, rtol=0, atol=0)


def test_sticky_routing_is_mostly_order(make_trace):
    trace = make_trace(batch=40, seq=200, vocab_size=500, sticky=0.9)
    parts = null_scores(trace, srp, repeats=2).parts()
    assert (parts["order"] > 0.2).all()
    assert all((parts[name].abs() < parts["order"] / 4).all() for name in ("domain", "topic", "vocabulary"))


def test_domain_routing_is_mostly_domain(make_trace):
    trace = make_trace(batch=30, seq=50, sticky=0)
    ids = trace.domain_ids[None, :, None, None] * 2 + torch.arange(2).expand(2, 30, 50, 2)  # two experts per domain
    parts = null_scores(replace(trace, expert_ids=ids), srp).parts()
    assert (parts["domain"] > 0.3).all()
    torch.testing.assert_close(parts["order"], torch.zeros(2).double())


def test_parts_add_up(make_trace):
    got = null_scores(make_trace(), srp)
    parts = got.parts()
    torch.testing.assert_close(parts["balance"] + parts["domain"] + parts["topic"] + parts["order"], got.raw)


def test_seed_decides(make_trace):
    trace = make_trace()
    same, other = shuffle(trace, "corpus", seed=1), shuffle(trace, "corpus", seed=2)
    assert torch.equal(shuffle(trace, "corpus", seed=1).expert_ids, same.expert_ids)
    assert not torch.equal(other.expert_ids, same.expert_ids)
