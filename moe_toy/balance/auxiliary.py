"""Auxiliary losses that push the router towards even load over a chosen scope."""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import NonNegativeFloat, validate_call
from torch import Tensor

from moe_toy.balance.base import BalanceLoss, LoadBalancer, StepCounts, assignment_counts
from moe_toy.distributed import sum_over_ranks
from moe_toy.routing import Routing


class AuxiliaryLoss(LoadBalancer):
    """`num_experts * sum over experts of load * mean score`, as in Switch (Fedus et al. 2021, arXiv 2101.03961).

    `load`, the fraction of assignments that an expert receives, is averaged over each sequence, over this rank's
    micro-batch, or over all ranks and all micro-batches since the last optimiser step. Gradients flow through the
    scores only. Both factors sum to 1, so the loss of a layer is 1 at perfect balance. The sum over layers times
    `coefficient` enters the objective: Megatron's convention, on which the paper's 0.01 rests. (The Hugging Face
    code gives `top_k` at balance, so its coefficients do not carry over.) Logged is the mean over layers.
    """

    @validate_call(config={"strict": True})
    def __init__(
        self,
        *,
        scope: Literal["sequence", "micro_batch", "global_batch"],
        coefficient: NonNegativeFloat,
        num_layers: int,
        num_experts: int,
    ) -> None:
        super().__init__(num_layers=num_layers, num_experts=num_experts)
        self.scope, self.coefficient = scope, coefficient
        self.step_counts = StepCounts(num_layers, num_experts) if scope == "global_batch" else None

    def loss(self, routings: list[Routing]) -> BalanceLoss:
        expert_ids = torch.stack([routing.expert_ids for routing in routings])
        scores = torch.stack([routing.scores for routing in routings])
        if self.scope != "sequence":
            expert_ids = rearrange(expert_ids, "layer batch seq k -> layer 1 (batch seq) k")
            scores = rearrange(scores, "layer batch seq expert -> layer 1 (batch seq) expert")
        counts = assignment_counts(expert_ids, self.num_experts)
        if self.step_counts is not None and self.training:
            self.step_counts.add(sum_over_ranks(counts[:, 0]))
            counts = self.step_counts.total[:, None]
        per_layer = load_balance_loss(counts, scores.mean(-2)).mean(-1)
        return BalanceLoss(
            objective=self.coefficient * per_layer.sum(),
            terms={"load_balance_loss": per_layer.mean().detach()},
        )

    def after_optimizer_step(self) -> None:
        if self.step_counts is not None:
            self.step_counts.clear()


def load_balance_loss(
    counts: Float[Tensor, "*group expert"] | Tensor, mean_scores: Float[Tensor, "*group expert"]
) -> Float[Tensor, "*group"]:
    """In [0, num_experts]; 1 where the load or the mean scores are even, num_experts where both are on one expert."""
    load = counts.to(mean_scores.dtype) / counts.sum(-1, keepdim=True)
    return counts.shape[-1] * (load * mean_scores).sum(-1)
