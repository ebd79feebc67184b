"""Reward what is uneven between neighbourhoods of tokens and even over the batch."""

from jaxtyping import Float, Int
from pydantic import NonNegativeFloat, PositiveInt, validate_call
from torch import Tensor

from moe_toy.balance.windows import load_balance_loss, stack_choices, windowed_balance_loss
from moe_toy.locality.base import LocalityLoss, LocalityScheme
from moe_toy.routing import Routing


class Contrast(LocalityScheme):
    """Adds `-coefficient * (segment loss - batch loss)` to the objective, summed over layers.

    Both are the balance loss of Switch, `num_experts * sum of load * mean score`, which is 1 where load is even: the
    first averaged over windows of `segment_length` tokens of a sequence, the second over the batch. Their difference
    grows where each window keeps to few experts and other windows to others. It leaves the pressure towards an even
    batch to `balance`, and needs some: with too little of it, experts die.

    The batch is what `balance` evens load over: with `balance=global_batch` the optimiser step over all ranks
    (`estimate=exact` knows all of it, `estimate=prefix` what was counted so far), else this rank's micro-batch.
    """

    @validate_call(config={"strict": True})
    def __init__(self, *, coefficient: NonNegativeFloat, segment_length: PositiveInt) -> None:
        super().__init__()
        self.coefficient, self.segment_length = coefficient, segment_length

    def loss(self, routings: list[Routing], batch_counts: Int[Tensor, "layer expert"] | None = None) -> LocalityLoss:
        expert_ids, scores = stack_choices(routings)
        segments = windowed_balance_loss(expert_ids, scores, self.segment_length)
        contrast: Float[Tensor, " layer"] = segments - self._batch_loss(expert_ids, scores, batch_counts)
        return LocalityLoss(
            objective=-self.coefficient * contrast.sum(), terms={"locality_contrast": contrast.mean().detach()}
        )

    def _batch_loss(self, expert_ids: Tensor, scores: Tensor, counts: Tensor | None) -> Float[Tensor, " layer"]:
        if counts is None:
            return windowed_balance_loss(expert_ids, scores, None)
        return load_balance_loss(counts, scores.mean((1, 2)))
