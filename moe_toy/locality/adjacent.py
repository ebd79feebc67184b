"""Penalise what changes from one token to the next."""

from jaxtyping import Int
from pydantic import NonNegativeFloat, validate_call
from torch import Tensor

from moe_toy.balance.windows import stack_choices
from moe_toy.locality.base import LocalityLoss, LocalityScheme
from moe_toy.routing import Routing


class Adjacent(LocalityScheme):
    """Adds `coefficient` times the squared distance between the router probabilities of neighbouring tokens of a
    sequence, as mean over tokens and sum over layers. Constant routing is its optimum, so it lowers the number of
    experts that are used at all unless `balance` holds against it.
    """

    @validate_call(config={"strict": True})
    def __init__(self, *, coefficient: NonNegativeFloat) -> None:
        super().__init__()
        self.coefficient = coefficient

    def loss(self, routings: list[Routing], batch_counts: Int[Tensor, "layer expert"] | None = None) -> LocalityLoss:
        _, scores = stack_choices(routings)
        if scores.shape[2] == 1:  # a single token has no neighbour
            distance = scores.sum((1, 2, 3)) * 0
        else:
            distance = scores.diff(dim=2).square().sum(-1).mean((1, 2))
        return LocalityLoss(
            objective=self.coefficient * distance.sum(), terms={"locality_distance": distance.mean().detach()}
        )
