"""Where a run stands in its training samples: counted in samples and tokens, whatever a batch or a step holds."""

import logging
from dataclasses import dataclass
from typing import Any

from moe_toy.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Position:
    """What had entered the weights by optimiser step `step`."""

    samples: int = 0
    tokens: int = 0
    step: int = 0

    def after(self, step: int, samples_per_step: int, sequence_length: int) -> "Position":
        """The position at `step`, reached from here in steps of one size."""
        samples = (step - self.step) * samples_per_step
        return Position(self.samples + samples, self.tokens + samples * sequence_length, step)


def saved_position(state: dict[str, Any], *, samples_per_step: int, sequence_length: int, by_epochs: bool) -> Position:
    """That of a checkpoint, from which steps of `samples_per_step` go on.

    Raises `UserError` where such steps were of another size and the run counts epochs: they would have another length,
    and the learning rate another schedule.
    """
    before = state.get("samples_per_step", samples_per_step)
    if before != samples_per_step:
        if by_epochs:
            raise UserError(
                f"ckpt_path: its steps were of {before} sequences, these are of {samples_per_step}, and epochs "
                f"(trainer.max_steps=-1) are counted in steps; set global_batch_size={before} or trainer.max_steps"
            )
        log.warning("a step was of %d sequences before, now it is of %d", before, samples_per_step)
    samples = state["num_samples"]
    return Position(samples, state.get("num_tokens", samples * sequence_length), state["global_step"])
