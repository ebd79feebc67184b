"""The contrast of segments and batch, against a loop in float64 that follows its definition."""

import pytest
import torch
from pydantic import ValidationError

from moe_toy.locality.contrast import Contrast
from moe_toy.routing import Routing

NUM_EXPERTS, TOP_K = 6, 2


def make_routings(num_layers: int = 2, batch: int = 3, seq: int = 11) -> list[Routing]:
    generator = torch.Generator().manual_seed(0)
    routings = []
    for _ in range(num_layers):
        logits = torch.randn(batch, seq, NUM_EXPERTS, generator=generator, dtype=torch.float64, requires_grad=True)
        scores = logits.softmax(-1)
        chosen = scores.topk(TOP_K)
        routings.append(Routing(logits, scores, chosen.indices, chosen.values))
    return routings


def naive_balance_loss(chosen, scores) -> torch.Tensor:
    """Of one window of tokens, one expert at a time."""
    loss = torch.zeros((), dtype=torch.float64)
    for expert in range(NUM_EXPERTS):
        load = sum(int(expert in token.tolist()) for token in chosen) / (len(chosen) * TOP_K)
        loss = loss + load * sum(token[expert] for token in scores) / len(scores)
    return NUM_EXPERTS * loss


def naive_objective(routings, coefficient, length) -> torch.Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for routing in routings:
        chosen, scores = routing.expert_ids, routing.scores
        batch = naive_balance_loss(chosen.flatten(0, 1), scores.flatten(0, 1))
        segments = torch.zeros((), dtype=torch.float64)
        for sequence in range(len(chosen)):
            for first in range(0, chosen.shape[1], length):
                window = slice(first, first + length)
                share = len(chosen[sequence, window]) / chosen.shape[:2].numel()
                segments = segments + share * naive_balance_loss(chosen[sequence, window], scores[sequence, window])
        total = total - coefficient * (segments - batch)
    return total


@pytest.mark.parametrize("length", [1, 4, 11, 100])
def test_value_and_gradient_are_those_of_the_definition(length):
    routings = make_routings()
    logits = [routing.logits for routing in routings]
    found = Contrast(coefficient=0.3, segment_length=length).loss(routings)
    expected = naive_objective(routings, 0.3, length)
    torch.testing.assert_close(found.objective, expected)
    assert expected.abs() > 1e-4
    for ours, naive in zip(
        torch.autograd.grad(found.objective, logits, retain_graph=True),
        torch.autograd.grad(expected, logits),
        strict=True,
    ):
        torch.testing.assert_close(ours, naive)


def test_sequences_that_each_keep_to_an_expert_of_their_own_have_the_largest_contrast():
    """Even over the batch (1), all on one expert in each segment (num_experts)."""
    expert_ids = torch.arange(NUM_EXPERTS)[:, None, None].expand(NUM_EXPERTS, 8, 1)
    scores = torch.nn.functional.one_hot(expert_ids[..., 0], NUM_EXPERTS).double()
    routing = Routing(scores.log(), scores, expert_ids, torch.ones(NUM_EXPERTS, 8, 1))
    loss = Contrast(coefficient=1.0, segment_length=4).loss([routing])
    assert loss.terms["locality_contrast"].item() == pytest.approx(NUM_EXPERTS - 1)
    assert loss.objective.item() == pytest.approx(1 - NUM_EXPERTS)


def test_the_batch_is_the_step_where_balance_knows_it():
    routings = make_routings()
    counts = torch.randint(1, 50, (2, NUM_EXPERTS), generator=torch.Generator().manual_seed(1))
    known = Contrast(coefficient=1.0, segment_length=4).loss(routings, counts)
    alone = Contrast(coefficient=1.0, segment_length=4).loss(routings)
    expected = sum(
        NUM_EXPERTS * (count / count.sum() * r.scores.mean((0, 1))).sum()
        for count, r in zip(counts, routings, strict=True)
    ) - sum(naive_balance_loss(r.expert_ids.flatten(0, 1), r.scores.flatten(0, 1)) for r in routings)
    torch.testing.assert_close(known.objective - alone.objective, expected)


@pytest.mark.parametrize("settings", [{"coefficient": -1.0}, {"segment_length": 0}, {"segment_length": 2.5}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        Contrast(**{"coefficient": 0.01, "segment_length": 16, **settings})
