"""Balance without a loss: a bias on the selection of experts, moved after each optimiser step."""

import torch
from jaxtyping import Float
from pydantic import PositiveFloat, validate_call
from torch import Tensor

from moe_toy.balance.base import BalanceLoss, LoadBalancer
from moe_toy.balance.counts import StepCounts, assignment_counts
from moe_toy.distributed import sum_over_ranks
from moe_toy.routing import Routing


class LossFreeBias(LoadBalancer):
    """Raises the bias of under-used experts by `rate` and lowers that of over-used ones, once per optimiser step.

    Wang et al. 2024, arXiv 2408.15664. The load is that of the whole batch: all ranks, all micro-batches.
    Validation tokens never count. The bias is saved with the model.
    """

    @validate_call(config={"strict": True})
    def __init__(self, *, rate: PositiveFloat, num_layers: int, num_experts: int) -> None:
        super().__init__(num_layers=num_layers, num_experts=num_experts)
        self.rate = rate
        self.step_counts = StepCounts(num_layers, num_experts)
        self.register_buffer("bias", torch.zeros(num_layers, num_experts))

    @property
    def selection_bias(self) -> Float[Tensor, "layer expert"]:
        return self.bias

    @torch.no_grad()
    def loss(self, routings: list[Routing]) -> BalanceLoss:
        """Counts the micro-batch; the objective is zero."""
        if self.training:
            expert_ids = torch.stack([routing.expert_ids.flatten(0, 1) for routing in routings])
            self.step_counts.add(assignment_counts(expert_ids, self.num_experts))
        return super().loss(routings)

    @torch.no_grad()
    def after_optimizer_step(self) -> dict[str, Tensor]:
        counts = sum_over_ranks(self.step_counts.total).to(self.bias.dtype)
        self.bias += self.rate * (counts.mean(-1, keepdim=True) - counts).sign()
        self.step_counts.clear()
        return {}
