"""Numbers of a run, of its trainer and of the optimiser, checked once."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from pydantic.dataclasses import dataclass

from moe_toy.errors import UserError
from moe_toy.model.config import STRICT, NonNegativeFloat

Beta = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Part = dict[str, Any]
OTHERS_ARE_FREE = ConfigDict(strict=True, extra="ignore")


@dataclass(frozen=True, kw_only=True, config=OTHERS_ARE_FREE)
class RunConfig:
    """What is not of any part, and that the parts are there."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    global_batch_size: PositiveInt | None
    ckpt_path: str | None
    init_from: str | None
    sweep_name: str | None
    threads: PositiveInt | None
    check_devices: bool
    check_memory: bool
    data: Part
    optimizer: Part
    trainer: Part
    callbacks: Part
    logger: Part


@dataclass(frozen=True, kw_only=True, config=OTHERS_ARE_FREE)
class DataConfig:
    """What of the data is held against other parts, or read before the data module is loaded."""

    source: Part
    root: str | None
    domains: list[str | int] | None
    weights: dict[str | int, float] | None
    tokenizer: str | None
    tokenizer_sample_bytes: PositiveInt
    vocab_size: int
    batch_size: PositiveInt
    sequence_length: PositiveInt
    validation_length: PositiveInt
    validation_samples: PositiveInt


@dataclass(frozen=True, kw_only=True, config=OTHERS_ARE_FREE)
class TrainerConfig:
    """What Lightning's Trainer does not check itself, or only after a run has begun."""

    max_steps: Annotated[int, Field(ge=-1)]
    max_epochs: Annotated[int, Field(ge=-1)] | None
    min_epochs: NonNegativeInt | None
    num_nodes: PositiveInt
    accelerator: str = "auto"
    precision: str | int | None = "32-true"
    devices: PositiveInt | Literal[-1] | list[NonNegativeInt] | Annotated[str, Field(pattern=r"^(auto|-1|\d+(,\d+)*)$")]
    max_time: dict[Literal["weeks", "days", "hours", "minutes", "seconds"], NonNegativeInt] | str | None
    accumulate_grad_batches: PositiveInt
    gradient_clip_val: NonNegativeFloat | None
    val_check_interval: PositiveInt | Annotated[float, Field(gt=0, le=1)]
    check_val_every_n_epoch: PositiveInt | None
    num_sanity_val_steps: Annotated[int, Field(ge=-1)]
    log_every_n_steps: PositiveInt
    limit_train_batches: NonNegativeInt | Share | None
    limit_val_batches: NonNegativeInt | Share | None
    overfit_batches: NonNegativeInt | Share
    enable_progress_bar: bool

    @model_validator(mode="after")
    def _check(self) -> "TrainerConfig":
        if self.max_steps == self.max_epochs == -1:
            raise ValueError("trainer.max_steps=-1 and trainer.max_epochs=-1 never end; set one of them")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OptimizerConfig:
    """An algorithm, and its learning rate with linear warm-up and cosine decay."""

    algorithm: Literal["adamw", "adafactor_in_backward"]
    """Adafactor's learning rate is relative to the size of each parameter, and 1 / sqrt(step) at most."""
    lr: PositiveFloat
    """Highest learning rate, reached at the end of the warm-up."""
    min_lr: NonNegativeFloat
    """Learning rate at the last step."""
    warmup_steps: NonNegativeInt
    """Optimiser steps of linear warm-up."""
    weight_decay: NonNegativeFloat
    """Decoupled decay of matrices; norms have none."""
    beta1: Beta | None
    beta2: Beta | None
    eps: PositiveFloat | None
    """These three are AdamW's; Adafactor has none."""

    @model_validator(mode="after")
    def _check(self) -> "OptimizerConfig":
        if self.min_lr > self.lr:
            raise ValueError(
                f"optimizer.min_lr ({self.min_lr}) cannot exceed optimizer.lr ({self.lr}); lower min_lr or raise lr"
            )
        for name in ("beta1", "beta2", "eps"):
            value, needs_number = getattr(self, name), self.algorithm == "adamw"
            if (value is not None) != needs_number:
                wanted = "a number" if needs_number else "null"
                raise ValueError(
                    f"optimizer.{name} ({value}) must be {wanted} with optimizer.algorithm={self.algorithm}; "
                    "change one of them"
                )
        return self

    def check_trainer(self, *, gradient_clip_val: float | None, accumulate_grad_batches: int) -> None:
        """Refuse what needs all gradients together where they never are."""
        if self.algorithm == "adafactor_in_backward" and (gradient_clip_val or accumulate_grad_batches > 1):
            raise UserError(
                "optimizer.algorithm=adafactor_in_backward frees each gradient at once, so it can neither clip nor "
                f"accumulate: set trainer.gradient_clip_val=null (given {gradient_clip_val}) and "
                f"trainer.accumulate_grad_batches=1 (given {accumulate_grad_batches})"
            )
