"""From the batch that an optimiser step should see to the micro-batches that each rank accumulates."""

from moe_toy.errors import UserError


def accumulated_batches(global_batch_size: int, *, batch_size: int, num_ranks: int) -> int:
    """Micro-batches per rank and step, so that all ranks together see `global_batch_size` sequences."""
    together = batch_size * num_ranks
    if global_batch_size < together or global_batch_size % together:
        raise UserError(
            f"global_batch_size ({global_batch_size}) must be a multiple of data.batch_size x ranks ({batch_size} x "
            f"{num_ranks} = {together}); change data.batch_size or the number of ranks"
        )
    return global_batch_size // together


def accumulated_alone(global_batch_size: int | None, *, batch_size: int, accumulate_grad_batches: int) -> int:
    """Micro-batches per step of a single rank. What it refuses is wrong on any number of ranks."""
    if global_batch_size is None:
        return accumulate_grad_batches
    if accumulate_grad_batches != 1:
        raise UserError(
            f"trainer.accumulate_grad_batches={accumulate_grad_batches} is derived from global_batch_size="
            f"{global_batch_size}; leave it at 1, or set global_batch_size=null"
        )
    return accumulated_batches(global_batch_size, batch_size=batch_size, num_ranks=1)
