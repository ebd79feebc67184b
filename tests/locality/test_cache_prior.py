"""Cache-prior routing, against a cache that is a list and a loop that follows the definition."""

import pytest
import torch

from moe_toy.errors import UserError
from moe_toy.locality.base import LocalityScheme
from moe_toy.locality.cache_prior import CachePrior
from moe_toy.locality.document_pool import DocumentPool
from moe_toy.locality.residency import Residency
from moe_toy.metrics.cache import cache_hits
from moe_toy.model.router import TopKRouter
from tests.behaviour.test_invariance import BATCH, SEQ, VOCAB
from tests.locality.test_base import make_model
from tests.model.conftest import make_config  # noqa: F401 (a fixture)

NUM_EXPERTS, TOP_K = 7, 2


def naive(ranking: torch.Tensor, capacity: int, strength: float) -> torch.Tensor:
    preferred = ranking.clone()
    for sequence, rows in enumerate(ranking.tolist()):
        cache, ranges = [], []  # the least recently used expert first
        for token, row in enumerate(rows):
            open_to = [value for value in row if value > -float("inf")]
            ranges.append(max(open_to) - min(open_to))
            bonus = strength * sum(ranges) / len(ranges)
            liked = [value + bonus * (expert in cache) for expert, value in enumerate(row)]
            preferred[sequence, token] = torch.tensor(liked, dtype=ranking.dtype)
            chosen = sorted(range(NUM_EXPERTS), key=lambda e: (-liked[e], e))[:TOP_K]
            cache = [expert for expert in cache if expert not in chosen] + chosen
            cache = cache[-capacity:]
    return preferred


def steered(ranking: torch.Tensor, limit: LocalityScheme | None = None, **settings) -> torch.Tensor:
    prior = CachePrior(limit or LocalityScheme(), **settings).eval()
    return prior.steer(torch.zeros(ranking.shape[:2], dtype=torch.long))(ranking, ranking.softmax(-1), TOP_K)


def random_ranking(levels: int = 1000) -> torch.Tensor:
    return torch.randint(levels, (4, 30, NUM_EXPERTS), generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("capacity", [2, 3, 7])
@pytest.mark.parametrize("strength", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("levels", [3, 1000], ids=["ties", "distinct"])
def test_the_ranking_is_that_of_the_definition(capacity, strength, levels):
    ranking = random_ranking(levels)
    kept = ranking.clone()
    found = steered(ranking, capacity=capacity, strength=strength)
    torch.testing.assert_close(found, naive(ranking, capacity, strength), rtol=1e-12, atol=0)
    assert torch.equal(ranking, kept)
    assert torch.equal(found, ranking) == (strength == 0)


def test_a_cache_of_the_size_it_is_made_for_hits_more_the_stronger_it_is():
    hits = []
    for strength in (0.0, 0.2, 2.0):
        chosen = steered(random_ranking(), capacity=3, strength=strength).topk(TOP_K).indices
        found, _ = cache_hits(chosen[None], NUM_EXPERTS, policy="lru", cold="miss")
        hits.append(found[..., 2].sum().item())
    assert hits[0] < hits[1] < hits[2] == 4 * (30 - 1) * TOP_K  # at last the first experts stay


def test_what_a_limit_leaves_out_stays_out():
    ranking = random_ranking()
    pool = DocumentPool(smallest=2, largest=5, evaluated=4).eval()
    limited = pool.steer(torch.zeros(4, 30, dtype=torch.long))(ranking, ranking.softmax(-1), TOP_K)
    found = steered(ranking, pool, capacity=3, strength=0.5)
    torch.testing.assert_close(found, naive(limited, 3, 0.5), rtol=1e-12, atol=0)
    residents = steered(ranking, Residency(swaps=1), capacity=3, strength=9.0).isfinite()
    free = Residency(swaps=1).steer(torch.zeros(4, 30, dtype=torch.long))(ranking, ranking.softmax(-1), TOP_K)
    assert torch.equal(residents, free.isfinite())


@pytest.mark.parametrize("kind", ["softmax_then_topk", "topk_then_softmax", "sigmoid"])
def test_weights_are_those_without_it_for_the_experts_that_are_chosen(make_config, kind):  # noqa: F811
    normalized = kind == "topk_then_softmax"
    config = make_config(router=kind, normalize_weights=normalized)
    torch.manual_seed(0)
    router, x = TopKRouter(config), torch.randn(2, 9, config.hidden_size)
    torch.nn.init.normal_(router.weight)
    prior = CachePrior(LocalityScheme(), strength=1.0, capacity=4)
    routing = router(x, None, prior.steer(torch.zeros(2, 9, dtype=torch.long)))
    assert not torch.equal(routing.expert_ids, router(x).expert_ids)
    chosen = routing.logits.gather(-1, routing.expert_ids)
    affinity = routing.logits.sigmoid() if kind == "sigmoid" else routing.logits.softmax(-1)
    expected = chosen.softmax(-1) if normalized else affinity.gather(-1, routing.expert_ids)
    torch.testing.assert_close(routing.weights, expected)


def test_without_strength_a_model_is_as_it_was_and_no_sequence_knows_another(make_config):  # noqa: F811
    tokens = torch.randint(VOCAB, (BATCH, SEQ), generator=torch.Generator().manual_seed(1))
    plain, none, strong = (
        make_model(make_config(), locality, scope="micro_batch").eval()
        for locality in (
            None,
            CachePrior(LocalityScheme(), strength=0.0, capacity=4),
            CachePrior(LocalityScheme(), strength=1.0, capacity=4),
        )
    )
    assert torch.equal(plain(tokens).logits, none(tokens).logits)
    together = strong(tokens).trace.expert_ids
    assert not torch.equal(together, plain(tokens).trace.expert_ids)
    assert torch.equal(together[:, 3:4, :6], strong(tokens[3:4, :6]).trace.expert_ids)


@pytest.mark.parametrize("capacity", [1, 9])
def test_a_cache_that_fits_no_model_is_refused(make_config, capacity):  # noqa: F811
    with pytest.raises(UserError, match=rf"a cache of {capacity} experts does not fit 8 experts .* between 1 and 4"):
        make_model(make_config(), CachePrior(LocalityScheme(), strength=1.0, capacity=capacity), scope="micro_batch")
