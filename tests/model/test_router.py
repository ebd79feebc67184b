import pytest
import torch

from moe_toy.model.initial_values import init_matrices
from moe_toy.model.router import TopKRouter, best_first, z_loss

KINDS = ("topk_then_softmax", "softmax_then_topk", "sigmoid")


def make_router(make_config, **changes) -> TopKRouter:
    torch.manual_seed(0)
    router = TopKRouter(make_config(**changes))
    init_matrices(router, 1.0, seed=0)
    return router


def test_topk_then_softmax_is_the_softmax_over_the_chosen_logits(make_config):
    router = make_router(make_config)
    routing = router(torch.randn(2, 3, 16))
    chosen = routing.logits.topk(2)
    assert torch.equal(routing.expert_ids, chosen.indices)
    torch.testing.assert_close(routing.weights, chosen.values.softmax(-1))


def test_sigmoid_scores_are_normalised_for_the_balance_loss(make_config):
    routing = make_router(make_config, router="sigmoid")(torch.randn(2, 3, 16))
    affinity = routing.logits.sigmoid()
    torch.testing.assert_close(routing.scores, affinity / affinity.sum(-1, keepdim=True))
    torch.testing.assert_close(routing.weights.sum(-1), torch.ones(2, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_selection_bias_moves_the_choice_but_not_the_weights(make_config, kind):
    router = make_router(make_config, router=kind)
    x, bias = torch.randn(1, 4, 16), torch.zeros(8)
    bias[5] = 10.0
    plain, biased = router(x), router(x, bias)
    assert (biased.expert_ids == 5).any(-1).all()
    assert torch.equal(plain.scores, biased.scores)
    assert (biased.weights < 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_experts_come_in_the_order_of_their_logits_whatever_moved_the_choice(make_config, kind):
    router = make_router(make_config, router=kind, top_k=3)
    x, bias = torch.randn(2, 8, 16), torch.rand(8)
    for options in ({"selection_bias": bias}, {"steer": lambda ranking, scores, top_k: ranking + 5 * bias}):
        routing = router(x, **options)
        logits = routing.logits.gather(-1, routing.expert_ids)
        assert (logits.diff(dim=-1) < 0).all()
        assert (routing.weights.diff(dim=-1) < 0).all()
        assert (routing.expert_ids != router(x).expert_ids).any()


def test_ties_go_to_the_lower_index():
    assert best_first(torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0]]), 4).tolist() == [[1, 2, 4, 0]]


@pytest.mark.parametrize("values", [3, 1000])
def test_the_best_are_those_of_a_stable_sort_with_ties_and_without(values):
    ranking = torch.randint(values, (50, 8)) + torch.arange(8) * (values > 8) / 8
    expected = ranking.sort(dim=-1, descending=True, stable=True).indices
    for top_k in (1, 3, 8):
        assert torch.equal(best_first(ranking, top_k), expected[:, :top_k])


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_router_gives_ties_to_the_lower_index(make_config, kind, biased):
    router = make_router(make_config, router=kind)
    torch.nn.init.zeros_(router.weight)
    routing = router(torch.randn(2, 3, 16), torch.zeros(8) if biased else None)
    assert (routing.expert_ids == torch.tensor([0, 1])).all()


@pytest.mark.parametrize("kind", KINDS)
def test_saturated_scores_still_rank_by_logit(make_config, kind):
    router = make_router(make_config, router=kind)
    with torch.no_grad():
        router.weight.copy_(torch.arange(100.0, 108.0)[:, None].expand(8, 16))
    assert (router(torch.ones(1, 1, 16)).expert_ids == torch.tensor([7, 6])).all()


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("kind", ["softmax_then_topk", "sigmoid"])
def test_weights_are_the_scores_of_the_chosen_normalised_or_not(make_config, kind, normalized):
    routing = make_router(make_config, router=kind, normalize_weights=normalized)(torch.randn(2, 3, 16))
    affinity = routing.logits.softmax(-1) if kind == "softmax_then_topk" else routing.logits.sigmoid()
    expected = affinity.topk(2).values
    torch.testing.assert_close(routing.weights, expected / expected.sum(-1, keepdim=True) if normalized else expected)
    torch.testing.assert_close(routing.scores.sum(-1), torch.ones(2, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_router_stays_in_fp32_under_autocast(make_config, kind):
    router, x = make_router(make_config, router=kind), torch.randn(1, 4, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        routing = router(x)
    assert torch.equal(routing.logits, router(x).logits)
    assert routing.scores.dtype == routing.weights.dtype == torch.float32


def test_half_precision_input_is_routed_in_fp32_and_weighted_in_its_own(make_config):
    router, x = make_router(make_config), torch.randn(1, 4, 16).bfloat16()
    routing = router(x)
    assert torch.equal(routing.logits, router(x.float()).logits)
    assert routing.weights.dtype == torch.bfloat16


def test_z_loss_of_even_logits_is_the_squared_log_of_their_number():
    assert z_loss(torch.zeros(1, 2, 8)).item() == pytest.approx(torch.tensor(8.0).log().item() ** 2)
