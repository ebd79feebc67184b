"""What a balance loss does to the router, against the formula worked out by hand."""

import pytest
import torch

from moe_toy.balance.auxiliary import AuxiliaryLoss
from moe_toy.model.initial_values import init_matrices
from moe_toy.model.router import TopKRouter
from tests.model.conftest import make_config  # noqa: F401 (a fixture)


def router_gradient(config, coefficient: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the loss over a micro-batch of 2 x 5 tokens: by autograd, and by hand."""
    torch.manual_seed(0)
    router = TopKRouter(config).double()
    init_matrices(router, 1.0, seed=0)
    x = torch.randn(2, 5, config.hidden_size, dtype=torch.float64)
    num_experts = config.moe.num_experts
    routing = router(x)
    balancer = AuxiliaryLoss(scope="micro_batch", coefficient=coefficient, num_layers=1, num_experts=num_experts)
    (gradient,) = torch.autograd.grad(balancer.loss([routing]).objective, router.weight)

    x, scores = x.flatten(0, 1), routing.scores.detach().flatten(0, 1)
    load = routing.expert_ids.flatten().bincount(minlength=num_experts) / routing.expert_ids.numel()
    # softmax: d score_e / d logit_j = score_e (1[e=j] - score_j)
    by_logit = coefficient * num_experts / len(x) * scores * (load - (scores * load).sum(-1, keepdim=True))
    return gradient, by_logit.T @ x


@pytest.mark.parametrize("kind", ["topk_then_softmax", "softmax_then_topk"])
def test_the_routers_gradient_is_the_analytic_one(make_config, kind):  # noqa: F811
    gradient, expected = router_gradient(make_config(router=kind), 0.01)
    assert gradient.abs().max() > 1e-5
    torch.testing.assert_close(gradient, expected)


def test_the_routers_gradient_is_linear_in_the_coefficient(make_config):  # noqa: F811
    gradients = {c: router_gradient(make_config(), c)[0] for c in (0.0, 0.01, 0.1)}
    assert not gradients[0.0].any()
    torch.testing.assert_close(gradients[0.1], 10 * gradients[0.01])
