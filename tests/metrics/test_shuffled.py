"""The expectation over all orders, against orders drawn one by one and counted by hand."""

import itertools

import pytest
import torch

from moe_toy.errors import UserError
from moe_toy.metrics.null_models import null_scores
from moe_toy.metrics.shuffled import ShuffledSRP, hypergeometric
from moe_toy.metrics.srp import SRP
from moe_toy.routing import RoutingTrace


def sticky_trace(batch: int = 24, seq: int = 128, experts: int = 8, k: int = 2, layers: int = 2) -> RoutingTrace:
    """Each sequence prefers some experts, and each token the experts of its neighbour."""
    generator = torch.Generator().manual_seed(0)
    taste = torch.randn(layers, batch, 1, experts, generator=generator)
    noise = torch.randn(layers, batch, seq, experts, generator=generator).cumsum(2) / 4
    ids = (taste + noise - noise.mean(2, keepdim=True)).topk(k).indices
    return RoutingTrace(expert_ids=ids, token_ids=None, num_experts=experts, layer_ids=tuple(range(layers)))


def scored(*traces: RoutingTrace, segment_length: int = 16):
    metric = ShuffledSRP(num_layers=2, num_experts=8, segment_length=segment_length)
    for trace in traces:
        metric.update(trace)
    return metric.compute()


def test_it_is_the_mean_of_shuffles():
    def srp(trace):
        metric = SRP(num_layers=2, num_experts=8)
        metric.update(trace)
        return metric.compute().model.srp

    trace = sticky_trace()
    found, drawn = scored(trace), null_scores(trace, srp, repeats=8)
    assert found.sequence.item() == pytest.approx(drawn.sequence.item(), abs=0.004)
    assert found.corpus.item() == pytest.approx(drawn.corpus.item(), abs=0.004)
    assert drawn.raw > found.sequence + 0.05 > found.corpus + 0.1


def test_all_orders_of_a_short_sequence_have_its_expected_histogram():
    """Six tokens, segments of two: every order of the tokens, counted one by one."""
    chosen = torch.tensor([0, 0, 0, 1, 1, 2])
    expected = torch.zeros(3)
    for order in itertools.permutations(range(6)):
        for expert in range(8):
            uses = (chosen[list(order)] == expert).long().unfold(0, 2, 1).sum(-1)
            expected += uses.bincount(minlength=3)
    metric = ShuffledSRP(num_layers=1, num_experts=8, segment_length=2)
    metric.update(RoutingTrace(expert_ids=chosen.view(1, 1, 6, 1), token_ids=None, num_experts=8, layer_ids=(0,)))
    torch.testing.assert_close(metric.within.float() / 2**24, expected / 720)
    assert metric.compute().sequence == pytest.approx(metric.compute().corpus.item())  # one sequence is the corpus


def test_batches_add_up_to_the_bit_and_short_sequences_add_nothing():
    trace = sticky_trace()
    parts = [trace.select(slice(start, start + 8)) for start in (16, 0, 8)]
    whole, split = scored(trace), scored(*parts, sticky_trace(seq=15))
    assert (whole.sequence, whole.corpus) == (split.sequence, split.corpus)
    assert scored(sticky_trace(seq=15)).sequence.isnan()


def test_probabilities_of_a_draw():
    found = hypergeometric(torch.tensor([0, 2, 5]), torch.tensor(5), 2)
    torch.testing.assert_close(found, torch.tensor([[1, 0, 0], [0.3, 0.6, 0.1], [0, 0, 1]], dtype=torch.float64))


def test_a_trace_of_another_model_is_refused():
    with pytest.raises(UserError, match="the trace has 3 MoE layers"):
        scored(sticky_trace(layers=3))
