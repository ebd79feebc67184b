"""How much text there is, against what a run needs of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

from moe_toy.data.domains import TextSource
from moe_toy.data.folders import Split
from moe_toy.data.order import BLOCK, TrainingOrder
from moe_toy.data.tokenizer import Tokenizer
from moe_toy.errors import UserError

if TYPE_CHECKING:
    from lightning import Trainer

log = logging.getLogger(__name__)
MUCH_SMALLER = 10


def check_enough(source: TextSource, tokenizer: Tokenizer, split: Split, length: int, domains: Sequence[str]) -> None:
    """Raise `UserError` for the first domain whose text fills no sequence of `length` tokens. Reads no more than it
    must, and writes nothing."""
    for domain in domains:
        num_documents, num_tokens = 0, 0
        texts = source.documents(domain, split)
        while num_tokens < length and (text := next(texts, None)) is not None:
            num_documents, num_tokens = num_documents + 1, num_tokens + len(tokenizer.encode([text])[0])
        if num_tokens < length:
            documents = f"{num_documents} document{'' if num_documents == 1 else 's'}"
            if split == "train":
                sequence = f"one sequence of data.sequence_length={length}"
                way_out = "add text, shorten it, or set its weight in data.weights to 0"
            else:
                sequence = f"one block of data.validation_length={length}"
                way_out = "add text, shorten the blocks or raise data.source.validation_fraction"
            kind = "training" if split == "train" else split
            raise UserError(f"{domain} has {num_tokens} {kind} tokens in {documents}, less than {sequence}; {way_out}")


def ends_by_steps(trainer: Trainer) -> bool:
    """Whether it is `max_steps` that says how many samples are drawn."""
    return trainer.max_steps > 0 and trainer.max_epochs in (None, -1) and not trainer.overfit_batches


def times_seen(order: TrainingOrder, num_samples: int) -> list[float]:
    """How often a run of `num_samples` sequences sees each token of each domain."""
    drawn = [num_samples * places / BLOCK for places in order.places]
    return [number / size if size else 0.0 for number, size in zip(drawn, order.sizes, strict=True)]


def log_times_seen(seen: Mapping[str, float], num_sequences: Mapping[str, int]) -> None:
    """Say it, and warn of domains that are much smaller than the others."""
    log.info("Each token is seen: %s", ", ".join(f"{domain} {times:.2g} times" for domain, times in seen.items()))
    usual = median(num_sequences.values())
    small = [name for name, number in num_sequences.items() if MUCH_SMALLER * number <= usual and seen[name] > 1]
    if small:
        log.warning(
            "%s: less than a tenth of the text of other domains, and repeated as often as said; add text, or lower "
            "data.weights there",
            ", ".join(small),
        )
