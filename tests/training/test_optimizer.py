import pytest
import torch
from pydantic import ValidationError
from torch import nn

from moe_toy.errors import UserError
from moe_toy.training.config import OptimizerConfig
from moe_toy.training.optimizer import build_optimizer, build_schedule

CONFIG = {
    "algorithm": "adamw",
    "lr": 1.0,
    "min_lr": 0.1,
    "warmup_steps": 4,
    "weight_decay": 0.1,
    "beta1": 0.9,
    "beta2": 0.95,
    "eps": 1e-8,
}


def learning_rates(total_steps: int, **changes) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = build_schedule(optimizer, OptimizerConfig(**CONFIG | changes), total_steps)
    rates = []
    for _ in range(total_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_warm_up_rises_to_lr_and_the_cosine_falls_to_min_lr():
    rates = learning_rates(24)
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[14] == pytest.approx(0.55)  # half way down
    assert rates[-1] == pytest.approx(0.1, abs=0.01)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_without_warm_up_the_first_step_has_the_full_rate():
    assert learning_rates(10, warmup_steps=0)[0] == 1.0


def test_a_run_shorter_than_its_warm_up_is_fine():
    assert learning_rates(2) == pytest.approx([0.2, 0.4])


def test_a_run_continued_for_longer_follows_the_longer_cosine():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    shorter, longer = (build_schedule(optimizer, OptimizerConfig(**CONFIG), steps) for steps in (12, 24))
    optimizer.step()
    for _ in range(12):
        shorter.step()
    longer.load_state_dict(shorter.state_dict())
    assert optimizer.param_groups[0]["lr"] == pytest.approx(learning_rates(24)[12])  # of the very next step
    longer.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(learning_rates(24)[13])


def test_only_matrices_decay():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.RMSNorm(3))
    decayed, plain = build_optimizer(model, OptimizerConfig(**CONFIG)).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert [p.ndim for p in decayed["params"]] == [2]
    assert [p.ndim for p in plain["params"]] == [1]


IN_BACKWARD = CONFIG | {
    "algorithm": "adafactor_in_backward",
    "lr": 0.1,
    "min_lr": 0.0,
    "beta1": None,
    "beta2": None,
    "eps": None,
}


def test_updating_in_the_backward_pass_equals_updating_after_it():
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 3)).double() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    in_backward = build_optimizer(models[0], OptimizerConfig(**IN_BACKWARD))
    after = torch.optim.Adafactor(
        [
            {"params": [p for p in models[1].parameters() if (p.ndim > 1) == decays]} | group
            for decays, group in ((True, {"weight_decay": 0.1}), (False, {"weight_decay": 0.0}))
        ],
        lr=0.1,
    )
    for x in torch.randn(3, 5, 4, dtype=torch.float64):
        in_backward.step(lambda x=x: models[0](x).square().sum().backward())
        models[1](x).square().sum().backward()
        after.step()
        after.zero_grad()
    for ours, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
        assert ours.grad is None


@pytest.mark.parametrize("contradiction", [{"gradient_clip_val": 1.0}, {"accumulate_grad_batches": 2}], ids=str)
def test_what_needs_all_gradients_together_is_refused_in_the_backward_pass(contradiction):
    fine = {"gradient_clip_val": None, "accumulate_grad_batches": 1}
    OptimizerConfig(**IN_BACKWARD).check_trainer(**fine)
    OptimizerConfig(**CONFIG).check_trainer(**fine | contradiction)
    with pytest.raises(UserError, match="can neither clip nor accumulate"):
        OptimizerConfig(**IN_BACKWARD).check_trainer(**fine | contradiction)


@pytest.mark.parametrize("change", [{"beta1": None}, {"algorithm": "adafactor_in_backward"}], ids=str)
def test_numbers_of_another_algorithm_are_refused(change):
    with pytest.raises(ValidationError, match=r"optimizer.beta1 \(.*\) must be"):
        OptimizerConfig(**CONFIG | change)


def test_min_lr_above_lr_is_refused():
    with pytest.raises(ValidationError, match=r"optimizer.min_lr \(2.0\) cannot exceed optimizer.lr \(1.0\)"):
        OptimizerConfig(**CONFIG | {"min_lr": 2.0})
