import pytest
import torch
from pydantic import ValidationError
from torch import nn

from moe_toy.training.config import OptimizerConfig
from moe_toy.training.optimizer import build_optimizer, build_schedule

CONFIG = {
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


def test_only_matrices_decay():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.RMSNorm(3))
    decayed, plain = build_optimizer(model, OptimizerConfig(**CONFIG)).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert [p.ndim for p in decayed["params"]] == [2]
    assert [p.ndim for p in plain["params"]] == [1]


def test_min_lr_above_lr_is_refused():
    with pytest.raises(ValidationError, match=r"optimizer.min_lr \(2.0\) cannot exceed optimizer.lr \(1.0\)"):
        OptimizerConfig(**CONFIG | {"min_lr": 2.0})
