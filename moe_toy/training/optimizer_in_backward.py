"""An optimiser for models whose gradients and moments do not fit beside their weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adafactor


class AdafactorInBackward(Adafactor):
    """Updates each parameter as soon as its gradient is whole, then frees the gradient.

    At most one gradient exists at a time, and the second moments of a matrix are one row and one column (Shazeer and
    Stern 2018, arXiv 1804.04235), so a step takes little more memory than the weights. All gradients are never there
    together: they cannot be clipped by their norm, accumulated over micro-batches or averaged over ranks.

    A gradient whose norm is not finite is not used; `refused` holds its parameter until the next step.
    """

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, **options)
        self.refused: list[Tensor] = []
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.register_post_accumulate_grad_hook(self._update)

    def _update(self, parameter: Tensor) -> None:
        if torch.isfinite(parameter.grad.norm()):
            super().step()  # it skips parameters without a gradient: all others
        else:
            self.refused.append(parameter)
        parameter.grad = None

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Only `closure` runs here: its backward pass is the step."""
        self.refused = []
        return None if closure is None else closure()
