import pytest
import torch
from pydantic import ValidationError

from moe_toy.balance.auxiliary import AuxiliaryLoss
from moe_toy.balance.windows import load_balance_loss
from moe_toy.errors import UserError
from moe_toy.routing import Routing

NUM_EXPERTS = 4


def certain_routing(expert_ids: torch.Tensor) -> Routing:
    """Top 1 with all the probability on the chosen expert."""
    scores = torch.nn.functional.one_hot(expert_ids, NUM_EXPERTS).float()
    return Routing(scores.log(), scores, expert_ids[..., None], torch.ones(*expert_ids.shape, 1))


def random_routing(seed: int, batch: int = 6) -> Routing:
    logits = torch.randn(batch, 5, NUM_EXPERTS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    logits.requires_grad_()
    scores = logits.softmax(-1)
    chosen = scores.topk(2)
    return Routing(logits, scores, chosen.indices, chosen.values)


SETTINGS = {"segment": {"segment_length": 2}, "global_batch": {"estimate": "prefix"}, "ema": {"decay": 0.5}}


def make_balancer(scope: str, num_layers: int = 1, coefficient: float = 1.0, **settings) -> AuxiliaryLoss:
    numbers = {"coefficient": coefficient, "num_layers": num_layers, "num_experts": NUM_EXPERTS}
    return AuxiliaryLoss(scope=scope, **numbers, **{**SETTINGS.get(scope, {}), **settings})


@pytest.mark.parametrize(
    ("scope", "expected"), [("segment", 4.0), ("sequence", 4.0), ("micro_batch", 1.0), ("global_batch", 1.0)]
)
def test_four_sequences_with_an_expert_each_are_balanced_globally_but_not_locally(scope, expected):
    each_its_own = torch.arange(4)[:, None].expand(4, 8)
    loss = make_balancer(scope).loss([certain_routing(each_its_own)])
    assert loss.objective.item() == pytest.approx(expected)
    assert loss.terms["load_balance_loss"].item() == pytest.approx(expected)


@pytest.mark.parametrize(("scope", "expected"), [("micro_batch", 4.0), ("global_batch", 1.0)])
def test_one_sequence_per_micro_batch_is_balanced_over_the_step_only(scope, expected):
    balancer = make_balancer(scope)
    # global_batch is a running estimate: by the last micro-batch it has seen the whole step
    losses = [balancer.loss([certain_routing(torch.full((1, 8), expert))]).objective for expert in range(4)]
    assert losses[-1].item() == pytest.approx(expected)
    balancer.after_optimizer_step()
    assert balancer.loss([certain_routing(torch.zeros(1, 8, dtype=torch.long))]).objective.item() == pytest.approx(4.0)


def test_halves_of_a_sequence_with_an_expert_each_are_balanced_per_sequence_but_not_per_segment():
    halves = certain_routing(torch.tensor([[0, 0, 0, 1, 1, 1]]).expand(4, 6) + 2 * torch.tensor([[0], [1], [0], [1]]))
    losses = {m: make_balancer("segment", segment_length=m).loss([halves]).objective.item() for m in (2, 3, 6, 100)}
    assert losses[3] == pytest.approx(4.0)
    assert losses[6] == losses[100] == pytest.approx(2.0)
    assert losses[2] == pytest.approx((4.0 + 2.0 + 4.0) / 3)


def test_a_shorter_last_segment_counts_by_its_tokens():
    routing = certain_routing(torch.tensor([[0, 0, 0, 0, 0, 1]]))  # segments of 4 tokens, then 2
    assert make_balancer("segment", segment_length=4).loss([routing]).objective.item() == pytest.approx(
        4 / 6 * 4.0 + 2 / 6 * 2.0
    )


def test_ema_judges_by_the_load_of_past_steps_only():
    balancer = make_balancer("ema", decay=0.5)
    on_first, on_second = (certain_routing(torch.full((1, 8), expert)) for expert in (0, 1))
    assert balancer.loss([on_first]).objective.item() == pytest.approx(1.0)  # nothing known: even load
    balancer.after_optimizer_step()
    assert balancer.loss([on_first]).objective.item() == pytest.approx(4.0)
    assert balancer.loss([on_second]).objective.item() == 0
    balancer.after_optimizer_step()  # the second step had half of its tokens on each
    torch.testing.assert_close(balancer.horizon.average, torch.tensor([[0.75, 0.25, 0, 0]]))
    for _ in range(2):
        balancer.loss([on_second])
        balancer.after_optimizer_step()  # from now on half of what was, half of what is
    torch.testing.assert_close(balancer.horizon.average, torch.tensor([[0.1875, 0.8125, 0, 0]]))


def test_ema_is_saved_and_validation_leaves_it_alone():
    balancer = make_balancer("ema").eval()
    balancer.loss([random_routing(0)])
    assert not balancer.horizon.step_counts.total.any()
    assert set(balancer.state_dict()) == {"horizon.average", "horizon.num_steps"}


def test_objective_is_the_coefficient_times_the_sum_over_layers():
    routings = [random_routing(seed) for seed in range(3)]
    loss = make_balancer("micro_batch", num_layers=3, coefficient=0.01).loss(routings)
    assert loss.objective.item() == pytest.approx(0.01 * 3 * loss.terms["load_balance_loss"].item())


@pytest.mark.parametrize("scope", ["sequence", "micro_batch", "global_batch"])
def test_gradient_flows_through_mean_scores_only(scope):
    routing = random_routing(0)
    (gradient,) = torch.autograd.grad(make_balancer(scope).loss([routing]).objective, routing.scores)
    chosen = torch.nn.functional.one_hot(routing.expert_ids, NUM_EXPERTS).sum(-2).double()
    load = chosen.mean((1,), keepdim=True) / 2 if scope == "sequence" else chosen.mean((0, 1), keepdim=True) / 2
    torch.testing.assert_close(gradient, (NUM_EXPERTS * load / 30).expand_as(gradient))


def test_validation_leaves_the_step_counts_alone():
    balancer = make_balancer("global_batch").eval()
    balancer.loss([random_routing(0)])
    assert balancer.horizon.counts.sum() == 0


def test_load_balance_loss_is_one_at_even_load_whatever_the_scores():
    assert load_balance_loss(torch.full((4,), 3), torch.tensor([0.7, 0.1, 0.1, 0.1])).item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("scope", "settings", "message"),
    [
        (
            "sequence",
            {"estimate": "exact"},
            "balance.estimate=exact says nothing to balance.scope=sequence, only",
        ),
        ("ema", {"estimate": "prefix"}, "choose balance=global_batch or remove it"),
        ("micro_batch", {"segment_length": 16}, "segment_length=16 says nothing to balance.scope=micro_batch, only to"),
        ("global_batch", {"decay": 0.9}, "balance.decay=0.9 says nothing"),
        ("segment", {"segment_length": None}, "balance.scope=segment needs balance.segment_length"),
    ],
)
def test_settings_of_another_scope_are_refused(scope, settings, message):
    with pytest.raises(UserError, match=message):
        make_balancer(scope, **settings)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_that_never_forgets_is_refused(decay):
    with pytest.raises(ValidationError, match="decay"):
        make_balancer("ema", decay=decay)


def test_unknown_scope_lists_the_known_ones():
    with pytest.raises(ValidationError, match="'sequence', 'micro_batch', 'global_batch' or 'ema'"):
        make_balancer("layer")
