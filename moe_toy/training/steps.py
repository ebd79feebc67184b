"""What an optimiser step is: how many micro-batches, which of them end one, and how Lightning is told.

Lightning counts micro-batches, whose size and number per step change with `data.batch_size` and the number of ranks. We
count steps, sequences and tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moe_toy.errors import UserError
from moe_toy.training.config import TrainerConfig

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def accumulated_batches(global_batch_size: int, *, batch_size: int, num_ranks: int) -> int:
    """Micro-batches per rank and step, so that all ranks together see `global_batch_size` sequences."""
    together = batch_size * num_ranks
    if global_batch_size < together or global_batch_size % together:
        raise UserError(
            f"global_batch_size ({global_batch_size}) must be a multiple of data.batch_size x ranks ({batch_size} x "
            f"{num_ranks} = {together}); change data.batch_size or the number of ranks"
        )
    return global_batch_size // together


def micro_batches_per_step(global_batch_size: int | None, *, batch_size: int, accumulate_grad_batches: int) -> int:
    """Micro-batches per step of a single rank. What it refuses is wrong on any number of ranks."""
    if global_batch_size is None:
        return accumulate_grad_batches
    if accumulate_grad_batches != 1:
        raise UserError(
            f"trainer.accumulate_grad_batches={accumulate_grad_batches} is derived from global_batch_size="
            f"{global_batch_size}; leave it at 1, or set global_batch_size=null"
        )
    return accumulated_batches(global_batch_size, batch_size=batch_size, num_ranks=1)


def set_steps(trainer: Trainer, global_batch_size: int | None, *, batch_size: int) -> None:
    """Give `trainer`, in place, the accumulation that makes a step, and a validation of all domains."""
    if global_batch_size is not None:
        trainer.accumulate_grad_batches = accumulated_batches(
            global_batch_size, batch_size=batch_size, num_ranks=trainer.world_size
        )
    if trainer.fast_dev_run:  # it tries single batches
        trainer.accumulate_grad_batches = 1
    elif trainer.overfit_batches:
        trainer.limit_val_batches = 1.0  # Lightning would validate as few batches as it trains on, of the first domains


def check_whole_steps(trainer: TrainerConfig | Trainer, accumulated: int) -> None:
    """Refuse epochs that end within a step of `accumulated` micro-batches: their last step would be smaller."""
    for name in ("limit_train_batches", "overfit_batches"):
        limit = getattr(trainer, name)
        if isinstance(limit, int) and limit % accumulated:
            raise UserError(
                f"trainer.{name}={limit} ends within a step of {accumulated} micro-batches; give a multiple of "
                f"{accumulated}, such as {limit + -limit % accumulated}"
            )


def check_interval(trainer: TrainerConfig | Trainer, num_steps: int, accumulated: int) -> None:
    """Refuse a validation interval of more steps than an epoch has, of the `num_steps` that its data give: it would
    never be reached. The same of epochs."""
    limit = trainer.overfit_batches or trainer.limit_train_batches
    if limit is not None:
        num_steps = min(num_steps, limit // accumulated) if isinstance(limit, int) else int(num_steps * limit)
    if not num_steps or not (trainer.overfit_batches or trainer.limit_val_batches != 0):
        return
    counts_within_epochs = isinstance(trainer.val_check_interval, int) and trainer.check_val_every_n_epoch is not None
    if counts_within_epochs and num_steps < trainer.val_check_interval:
        raise UserError(
            f"trainer.val_check_interval ({trainer.val_check_interval}) exceeds the {num_steps} steps that "
            "are trained on; lower it, give a share such as 0.5, or count across epochs with "
            "trainer.check_val_every_n_epoch=null"
        )
    limits = [-(-trainer.max_steps // num_steps)] * (trainer.max_steps > 0) + [trainer.max_epochs or -1]
    num_epochs = min((limit for limit in limits if limit > 0), default=None)
    if num_epochs is not None and num_epochs < (trainer.check_val_every_n_epoch or 1):
        raise UserError(
            f"trainer.check_val_every_n_epoch ({trainer.check_val_every_n_epoch}) exceeds the epochs that are trained "
            f"on ({num_epochs}, of {num_steps} steps); leave it at 1, and say how often with trainer.val_check_interval"
        )


def set_epoch(trainer: Trainer, num_batches: int) -> None:
    """Make an epoch, of the `num_batches` that its data give, end with a step; refuse what cannot."""
    accumulated = trainer.accumulate_grad_batches
    if isinstance(trainer.limit_train_batches, float):
        steps = int(num_batches // accumulated * trainer.limit_train_batches)
        if trainer.limit_train_batches and not steps:
            raise UserError(
                f"trainer.limit_train_batches={trainer.limit_train_batches} of {num_batches // accumulated} steps is "
                "none; raise it, or set 0 to train nothing"
            )
        trainer.limit_train_batches = steps * accumulated
    if not trainer.fast_dev_run:
        check_whole_steps(trainer, accumulated)
        check_interval(trainer, num_batches // accumulated, accumulated)


def set_validations(trainer: Trainer) -> None:
    """Validate after as many steps as `val_check_interval` says, or that share of an epoch's."""
    accumulated, interval = trainer.accumulate_grad_batches, trainer.val_check_interval
    if isinstance(interval, float):
        interval = max(1, int(trainer.num_training_batches // accumulated * interval))
    trainer.val_check_batch = interval * accumulated


def reset_batch_counts(fit_loop: dict[str, Any], *, step: int, accumulated: int) -> None:
    """Make the state of Lightning's loops after `step` steps, in place, that of steps of `accumulated` micro-batches.

    Lightning ends a step wherever its count of micro-batches is a multiple of `accumulated`, so a count of smaller or
    larger ones would end the next step early.
    """
    batches = fit_loop["epoch_loop.batch_progress"]
    if not step:
        return
    before = batches["total"]["completed"] // step
    for span in ("total", "current"):
        batches[span] = {key: number // before * accumulated for key, number in batches[span].items()}
