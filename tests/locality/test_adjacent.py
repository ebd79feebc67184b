import itertools

import pytest
import torch

from moe_toy.locality.adjacent import Adjacent
from tests.locality.test_contrast import make_routings


def test_value_and_gradient_are_those_of_the_definition():
    routings = make_routings()
    logits = [routing.logits for routing in routings]
    expected = torch.zeros((), dtype=torch.float64)
    for routing in routings:
        batch, seq, _ = routing.scores.shape
        for sequence in routing.scores:
            for now, after in itertools.pairwise(sequence):
                distance = sum((a - b) ** 2 for a, b in zip(now, after, strict=True))
                expected = expected + 0.3 * distance / (batch * (seq - 1))
    found = Adjacent(coefficient=0.3).loss(routings)
    torch.testing.assert_close(found.objective, expected)
    assert found.terms["locality_distance"].item() == pytest.approx(expected.item() / 0.3 / len(routings))
    for ours, naive in zip(
        torch.autograd.grad(found.objective, logits, retain_graph=True),
        torch.autograd.grad(expected, logits),
        strict=True,
    ):
        torch.testing.assert_close(ours, naive)


def test_a_single_token_has_no_neighbour():
    assert Adjacent(coefficient=1.0).loss(make_routings(seq=1)).objective.item() == 0
