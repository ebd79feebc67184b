"""Limits are part of a model: however its text is batched, split or recomputed, and wherever its checkpoint goes."""

import itertools

import pytest
import torch

from moe_toy.locality.base import LocalityScheme
from moe_toy.locality.document_pool import DocumentPool
from moe_toy.locality.limits import LIMITS, limit_of
from moe_toy.locality.residency import Residency
from moe_toy.model.router import TopKRouter
from tests.behaviour.test_invariance import BATCH, SEQ, VOCAB, distance, two_steps
from tests.locality.test_base import EXACT, make_model
from tests.model.conftest import MODEL, MOE, make_config  # noqa: F401 (make_config is a fixture)

SCHEMES = {
    "residency": Residency(swaps=1),
    "document_pool": DocumentPool(smallest=2, largest=4, evaluated=3),
}
each_scheme = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)


def test_all_of_them_are_here():
    assert SCHEMES.keys() == LIMITS.keys()


@each_scheme
def test_a_limit_is_built_again_from_its_settings(scheme):
    again = limit_of(scheme.settings)
    assert type(again) is type(scheme)
    assert again.settings == scheme.settings
    assert type(limit_of({})) is LocalityScheme


@each_scheme
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_a_sequence_is_routed_alike_in_every_batch_and_before_any_padding(make_config, scheme, training):  # noqa: F811
    tokens = torch.randint(VOCAB, (BATCH, SEQ), generator=torch.Generator().manual_seed(1))
    model = make_model(make_config(), scheme, scope="micro_batch").train(training)
    together = model(tokens).trace.expert_ids
    alone = torch.cat([model(sequence[None]).trace.expert_ids for sequence in tokens], 1)
    assert torch.equal(together, alone)
    assert torch.equal(together, model.route(tokens))
    if not training:  # where the size of a pool does not depend on the text
        padded = torch.nn.functional.pad(tokens, (0, 4), value=3)
        assert torch.equal(model(padded).trace.expert_ids[:, :, :SEQ], together)
    free = make_model(make_config(), None, scope="micro_batch")(tokens).trace.expert_ids
    assert not torch.equal(together, free)


@each_scheme
@pytest.mark.parametrize("kind", ["topk_then_softmax", "softmax_then_topk", "sigmoid"])
def test_gradients_are_those_of_a_loop(make_config, scheme, kind):  # noqa: F811
    """Of weights that are made among the experts a token may use, one token at a time."""
    config = make_config(router=kind, normalize_weights=kind != "softmax_then_topk")
    generator = torch.Generator().manual_seed(0)
    router = TopKRouter(config).double()
    torch.nn.init.normal_(router.weight, generator=generator)
    x = torch.randn(2, 7, config.hidden_size, dtype=torch.float64, generator=generator)
    steer = scheme.train().steer(torch.arange(14).view(2, 7))
    routing = router(x, None, steer)
    allowed = steer(routing.logits.detach(), routing.scores.detach(), config.moe.top_k).isfinite()
    wanted = torch.randn(routing.weights.shape, dtype=torch.float64, generator=generator)
    expected = torch.zeros((), dtype=torch.float64)
    for b, t in itertools.product(range(2), range(7)):
        logits = {e: x[b, t] @ router.weight[e] for e in range(8) if allowed[b, t, e]}
        score = {e: torch.sigmoid(z) if kind == "sigmoid" else z.exp() for e, z in logits.items()}
        chosen = sorted(logits, key=lambda e: -logits[e])[:2]
        assert routing.expert_ids[b, t].tolist() == chosen
        among = score if kind == "softmax_then_topk" else chosen
        for rank, e in enumerate(chosen):
            expected = expected + wanted[b, t, rank] * score[e] / sum(score[other] for other in among)
    found = (routing.weights * wanted).sum()
    torch.testing.assert_close(found, expected)
    ours, naive = (torch.autograd.grad(value, router.weight, retain_graph=True)[0] for value in (found, expected))
    torch.testing.assert_close(ours, naive)
    assert naive.abs().sum() > 0.01


@each_scheme
def test_splitting_a_step_changes_nothing_where_balance_is_exact(make_config, scheme):  # noqa: F811
    whole, split = (two_steps(make_model(make_config(), scheme, **EXACT), parts) for parts in (1, 4))
    assert distance(whole, split) < 1e-11


@each_scheme
def test_recomputing_activations_changes_nothing(make_config, scheme):  # noqa: F811
    plain, recomputed = (
        two_steps(make_model(make_config(activation_checkpointing=again), scheme, **EXACT), 2)
        for again in (False, True)
    )
    assert distance(plain, recomputed) < 1e-11
