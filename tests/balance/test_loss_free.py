import torch

from moe_toy.balance.loss_free import LossFreeBias
from tests.balance.test_auxiliary import certain_routing


def make_balancer() -> LossFreeBias:
    return LossFreeBias(rate=0.1, num_layers=1, num_experts=4)


def test_bias_moves_once_per_step_towards_under_used_experts():
    balancer = make_balancer()
    for expert in (0, 0, 1):
        balancer.loss([certain_routing(torch.full((1, 8), expert))])
    assert not balancer.bias.any()
    balancer.after_optimizer_step()
    # counts 16, 8, 0, 0 around a mean of 6
    torch.testing.assert_close(balancer.bias, torch.tensor([[-0.1, -0.1, 0.1, 0.1]]))


def test_even_load_leaves_the_bias_alone():
    balancer = make_balancer()
    balancer.loss([certain_routing(torch.arange(4)[:, None])])
    balancer.after_optimizer_step()
    assert not balancer.bias.any()


def test_validation_tokens_never_count():
    balancer = make_balancer().eval()
    balancer.loss([certain_routing(torch.zeros(1, 8, dtype=torch.long))])
    balancer.after_optimizer_step()
    assert not balancer.bias.any()


def test_bias_is_saved_and_counts_are_not():
    assert set(make_balancer().state_dict()) == {"bias"}


def test_a_raise_is_not_lost_to_half_precision():
    balancer = LossFreeBias(rate=0.001, num_layers=1, num_experts=2)
    balancer.bias += 0.5
    balancer.bfloat16()
    balancer.step_counts.add(torch.tensor([[1, 3]]))
    balancer.after_optimizer_step()
    torch.testing.assert_close(balancer.bias, torch.tensor([[0.501, 0.499]]), rtol=0, atol=1e-6)
