import pytest
import torch

from moe_toy.metrics import CoActivation
from moe_toy.metrics.coactivation import expert_pairs


def test_hand_computed(trace_of):
    metric = CoActivation(num_layers=1, num_experts=4)
    metric.update(trace_of([(0, 1), (1, 0), (1, 2)], 4))
    got = metric.compute()
    assert got.pairs[0].tolist() == [[2, 2, 0, 0], [2, 3, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert got.conditional[0, 1].tolist() == pytest.approx([2 / 3, 1, 1 / 3, 0])
    assert got.conditional[0, 3].isnan().all()  # a dead expert


def test_equals_the_product_of_masks(make_trace):
    from moe_toy.metrics.activation import activation_mask

    trace = make_trace()
    metric = CoActivation(num_layers=2, num_experts=6)
    metric.update(trace)
    mask = activation_mask(trace.expert_ids, 6).flatten(1, 2).long()
    assert torch.equal(metric.pairs, mask.mT @ mask)


def test_no_expert_is_in_no_pair():
    ids = torch.tensor([[[[0, 1], [0, -1], [-1, 2]]]])
    pairs = expert_pairs(ids, 3)[0]
    assert pairs.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]
