"""Numbers of the optimiser, checked once."""

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator
from pydantic.dataclasses import dataclass

from moe_toy.model.config import STRICT, NonNegativeFloat

Beta = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay."""

    lr: PositiveFloat
    """Highest learning rate, reached at the end of the warm-up."""
    min_lr: NonNegativeFloat
    """Learning rate at the last step."""
    warmup_steps: NonNegativeInt
    """Optimiser steps of linear warm-up."""
    weight_decay: NonNegativeFloat
    """Decoupled decay of matrices; norms have none."""
    beta1: Beta
    beta2: Beta
    eps: PositiveFloat

    @model_validator(mode="after")
    def _check(self) -> "OptimizerConfig":
        if self.min_lr > self.lr:
            raise ValueError(
                f"optimizer.min_lr ({self.min_lr}) cannot exceed optimizer.lr ({self.lr}); lower min_lr or raise lr"
            )
        return self
