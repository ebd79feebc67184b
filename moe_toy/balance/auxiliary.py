"""Auxiliary losses that push the router towards even load, over a chosen horizon of tokens."""

from collections.abc import Iterable
from typing import Annotated, Literal

from jaxtyping import Float, Int
from pydantic import Field, NonNegativeFloat, PositiveInt, validate_call
from torch import Tensor

from moe_toy.balance.base import BalanceLoss, LoadBalancer
from moe_toy.balance.counts import assignment_counts
from moe_toy.balance.past_load import PastLoad
from moe_toy.balance.step_load import StepLoad
from moe_toy.balance.windows import load_balance_loss, stack_choices, windowed_balance_loss
from moe_toy.errors import UserError
from moe_toy.routing import Routing

Scope = Literal["segment", "sequence", "micro_batch", "global_batch", "ema"]
SETTING = {"segment": "segment_length", "global_batch": "estimate", "ema": "decay"}
"""What a scope must be told besides its name."""


class AuxiliaryLoss(LoadBalancer):
    """`num_experts * sum over experts of load * mean score`, as in Switch (Fedus et al. 2021, arXiv 2101.03961).

    `load`, the fraction of assignments that an expert receives, is averaged over the `scope`: windows of
    `segment_length` tokens, each sequence, this rank's micro-batch, the whole batch of the optimiser step, or past
    steps. Gradients flow through the scores only. Both factors sum to 1, so the loss of a layer is 1 at perfect
    balance. The sum over layers times `coefficient` enters the objective: Megatron's convention, on which the
    paper's 0.01 rests. (The Hugging Face code gives `top_k` at balance, so its coefficients do not carry over.)
    Logged is the mean over layers.
    """

    @validate_call(config={"strict": True})
    def __init__(
        self,
        *,
        scope: Scope,
        coefficient: NonNegativeFloat,
        num_layers: int,
        num_experts: int,
        segment_length: PositiveInt | None = None,
        estimate: Literal["prefix", "exact"] | None = None,
        decay: Annotated[float, Field(ge=0, lt=1)] | None = None,
    ) -> None:
        super().__init__(num_layers=num_layers, num_experts=num_experts)
        check_settings(scope, segment_length=segment_length, estimate=estimate, decay=decay)
        self.scope, self.coefficient, self.segment_length = scope, coefficient, segment_length
        self.looks_ahead = estimate == "exact"
        self.horizon: StepLoad | PastLoad | None = None
        if scope == "global_batch":
            self.horizon = StepLoad(num_layers, num_experts)
        elif decay is not None:
            self.horizon = PastLoad(num_layers, num_experts, decay)

    def foresee(self, micro_batches: Iterable[Int[Tensor, "layer batch seq k"]]) -> None:
        self.horizon.foresee(micro_batches)

    def loss(self, routings: list[Routing]) -> BalanceLoss:
        expert_ids, scores = stack_choices(routings)
        known = None
        if self.horizon is not None and self.training:
            known = self.horizon.add(assignment_counts(expert_ids.flatten(1, 2), self.num_experts))
            per_layer = load_balance_loss(known, scores.mean((1, 2)))
        else:
            per_layer = self._local_loss(expert_ids, scores)
        return BalanceLoss(
            objective=self.coefficient * per_layer.sum(),
            terms={"load_balance_loss": per_layer.mean().detach()},
            batch_counts=known if isinstance(self.horizon, StepLoad) else None,
        )

    def after_optimizer_step(self) -> dict[str, Tensor]:
        errors = self.horizon.finish() if self.horizon is not None else {}
        return {f"balance_estimate_error/{name}": error for name, error in errors.items()}

    def _local_loss(
        self, expert_ids: Int[Tensor, "layer batch seq k"], scores: Float[Tensor, "layer batch seq expert"]
    ) -> Float[Tensor, " layer"]:
        length = scores.shape[2] if self.scope == "sequence" else self.segment_length
        return windowed_balance_loss(expert_ids, scores, length)


def check_settings(scope: Scope, **settings: object) -> None:
    """Refuse a scope without its setting, and settings of another scope."""
    for name, value in settings.items():
        (owner,) = (scope for scope, setting in SETTING.items() if setting == name)
        if owner == scope and value is None:
            raise UserError(f"balance.scope={scope} needs balance.{name}; give it, or choose balance={scope}")
        if owner != scope and value is not None:
            raise UserError(
                f"balance.{name}={value} says nothing to balance.scope={scope}, only to {owner}; "
                f"choose balance={owner} or remove it"
            )
