import torch

from moe_toy.balance.base import LoadBalancer
from moe_toy.balance.counts import assignment_counts
from tests.balance.test_auxiliary import random_routing


def test_the_scheme_none_adds_nothing_and_selects_nothing():
    balancer = LoadBalancer(num_layers=1, num_experts=4)
    assert balancer.loss([random_routing(0)]).objective.item() == 0
    assert balancer.selection_bias is None


def test_assignment_counts_sum_over_tokens_and_choices():
    counts = assignment_counts(torch.tensor([[[0, 1], [0, 3]], [[2, 3], [2, 1]]]), 4)
    assert counts.tolist() == [[2, 1, 0, 1], [0, 1, 2, 1]]
