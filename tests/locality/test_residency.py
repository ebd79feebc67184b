"""Rolling residency, against a loop over tokens that follows its definition."""

import pytest
import torch

from moe_toy.errors import UserError
from moe_toy.locality.residency import Residency
from moe_toy.model.router import TopKRouter
from tests.behaviour.test_invariance import SEQ, VOCAB
from tests.locality.test_base import make_model
from tests.model.conftest import make_config  # noqa: F401 (a fixture)

NUM_EXPERTS, TOP_K = 7, 3


def naive_residents(ranking: torch.Tensor, swaps: int) -> torch.Tensor:
    allowed = torch.zeros(ranking.shape, dtype=torch.bool)
    for sequence, rows in enumerate(ranking.tolist()):
        order = sorted(range(NUM_EXPERTS), key=lambda e: (-rows[0][e], e))
        resident = set(order[:TOP_K])
        for token, row in enumerate(rows):
            for _ in range(swaps if token else 0):
                best = min(set(range(NUM_EXPERTS)) - resident, key=lambda e: (-row[e], e))
                lowest = max(resident, key=lambda e: (-row[e], e))
                if (-row[best], best) < (-row[lowest], lowest):
                    resident = resident - {lowest} | {best}
            allowed[sequence, token, list(resident)] = True
    return allowed


@pytest.mark.parametrize("swaps", [0, 1, 2, 9])
@pytest.mark.parametrize("levels", [3, 1000], ids=["ties", "distinct"])
def test_residents_are_those_of_the_definition(swaps, levels):
    ranking = torch.randint(levels, (4, 20, NUM_EXPERTS), generator=torch.Generator().manual_seed(swaps)).float()
    found = Residency(swaps=swaps).steer(torch.zeros(4, 20, dtype=torch.long))(ranking, ranking.softmax(-1), TOP_K)
    residents = naive_residents(ranking, swaps)
    assert torch.equal(found, ranking.masked_fill(~residents, -torch.inf))
    assert (residents.sum(-1) == TOP_K).all()


def test_with_enough_swaps_routing_is_free(make_config):  # noqa: F811
    config = make_config()
    torch.manual_seed(0)
    router, x = TopKRouter(config), torch.randn(2, 9, config.hidden_size)
    torch.nn.init.normal_(router.weight)
    free = router(x)
    steer = Residency(swaps=config.moe.top_k).steer(torch.zeros(2, 9, dtype=torch.long))
    limited = router(x, None, steer)
    assert torch.equal(free.expert_ids, limited.expert_ids)
    assert torch.equal(free.scores, limited.scores)


def test_a_model_keeps_to_it_in_training_and_evaluation_and_looks_at_no_later_token(make_config):  # noqa: F811
    tokens = torch.randint(VOCAB, (3, SEQ), generator=torch.Generator().manual_seed(1))
    model = make_model(make_config(), Residency(swaps=1), scope="micro_batch")
    for mode in (model.train(), model.eval()):
        ids = mode(tokens).trace.expert_ids
        kept = (ids[:, :, 1:, :, None] == ids[:, :, :-1, None, :]).any(-1).sum(-1)
        assert (kept >= ids.shape[-1] - 1).all()
    whole, prefix = model(tokens), model(tokens[:, :5])
    assert torch.equal(whole.trace.expert_ids[:, :, :5], prefix.trace.expert_ids)
    torch.testing.assert_close(whole.logits[:, :5], prefix.logits)


def test_swaps_that_limit_nothing_are_refused(make_config):  # noqa: F811
    with pytest.raises(UserError, match=r"locality\.swaps \(2\) exchanges all of moe\.top_k \(2\)"):
        make_model(make_config(), Residency(swaps=2), scope="micro_batch")


def test_weights_are_those_among_the_residents(make_config):  # noqa: F811
    config = make_config(router="softmax_then_topk", normalize_weights=False)
    torch.manual_seed(0)
    router, x = TopKRouter(config), torch.randn(2, 9, config.hidden_size)
    torch.nn.init.normal_(router.weight)
    routing = router(x, None, Residency(swaps=0).steer(torch.zeros(2, 9, dtype=torch.long)))
    torch.testing.assert_close(routing.weights.sum(-1), torch.ones(2, 9))
    chosen = routing.logits.gather(-1, routing.expert_ids)
    torch.testing.assert_close(routing.weights, chosen.softmax(-1))
    (gradient,) = torch.autograd.grad(routing.weights[..., 0].sum(), router.weight)
    assert gradient.abs().sum() > 0
