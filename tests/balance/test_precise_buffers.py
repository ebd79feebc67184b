"""Averages over many steps keep fp32, whatever the weights are cast to."""

import pytest
import torch

from moe_toy.balance.auxiliary import AuxiliaryLoss
from moe_toy.balance.loss_free import LossFreeBias

SIZES = {"num_layers": 2, "num_experts": 3}
BALANCERS = {
    "loss_free": LossFreeBias(rate=0.001, **SIZES),
    "ema": AuxiliaryLoss(scope="ema", decay=0.9, coefficient=0.01, **SIZES),
    "global_batch": AuxiliaryLoss(scope="global_batch", estimate="prefix", coefficient=0.01, **SIZES),
}


@pytest.mark.parametrize("balancer", BALANCERS.values(), ids=BALANCERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_what_a_balancer_remembers_keeps_its_value(balancer, dtype):
    before = {name: x.clone() for name, x in balancer.named_buffers()}
    for name, x in balancer.to(dtype).named_buffers():
        assert x.dtype == before[name].dtype or x.dtype == dtype == torch.float64
        assert torch.equal(x, before[name].to(x.dtype))
    balancer.to(torch.float32)
