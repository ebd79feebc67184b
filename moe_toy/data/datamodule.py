"""From a text source to batches: a mixture of domains to train on, fixed blocks of each to validate on."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import lightning
import torch
from jaxtyping import Int
from lightning.pytorch.loggers import CSVLogger
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor
from torch.utils.data import DataLoader

from moe_toy.data.amounts import check_enough, ends_by_steps, log_times_seen, times_seen
from moe_toy.data.batches import (
    Sequences,
    TrainingLoader,
    TrainingSampler,
    collate,
    even_batches,
    ignore_stop_signals,
    workers,
)
from moe_toy.data.domains import TextSource, data_root, selected
from moe_toy.data.order import TrainingOrder, domain_weights
from moe_toy.data.packing import TokenStream, fill_a_block, first_blocks, token_streams, tokenize
from moe_toy.data.position import Position, saved_position
from moe_toy.data.text_check import check_text
from moe_toy.data.tokenizer import Tokenizer, check_fits, prepare_tokenizer, tokenizer_path
from moe_toy.errors import UserError
from moe_toy.routing import TokenBatch

log = logging.getLogger(__name__)
Tokens = Annotated[int, Field(ge=2)]
"""Of a sequence: one that is read and one that is predicted, at least."""


class DomainDataModule(lightning.LightningDataModule):
    """Training batches mix the `domains` of the source (null: all) by `weights` (null: equally).

    Validation takes the first `validation_samples` blocks of `validation_length` tokens of every domain.

    Rank r of W takes the r-th of every W micro-batches, so a step trains on the same samples as one rank with W
    times the batch. The only state is how many samples and tokens were trained on: a checkpoint taken between optimiser
    steps resumes exactly where it stopped, also with another batch size or number of ranks. The Trainer needs
    `use_distributed_sampler=False`.
    """

    def __init__(
        self,
        *,
        source: TextSource,
        domains: Sequence[str | int] | None,
        tokenizer: str | None,
        tokenizer_sample_bytes: PositiveInt,
        vocab_size: int,
        sequence_length: Tokens,
        batch_size: PositiveInt,
        validation_length: Tokens,
        validation_samples: PositiveInt,
        validation_batch_size: PositiveInt,
        weights: Mapping[str | int, float] | None,
        seed: NonNegativeInt,
        root: str | Path | None,
        num_workers: NonNegativeInt,
    ) -> None:
        super().__init__()
        self.source = selected(source, domains)
        self.vocab_size = vocab_size
        self.sequence_length = sequence_length
        self.batch_size = batch_size
        self.validation_length = validation_length
        self.validation_samples = validation_samples
        self.validation_batch_size = validation_batch_size
        self.weights = weights
        self.seed = seed
        self.root = data_root(root)
        self.num_workers = num_workers
        self._tokenizer_options: dict[str, Any] = {
            "name": tokenizer,
            "vocab_size": vocab_size,
            "sample_bytes": tokenizer_sample_bytes,
            "root": self.root,
        }
        self._start = Position()  # where this process began, or went on
        if num_workers:
            # A forked worker that tokenises with threads would hang, and the library warns at each fork.
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

    @property
    def domains(self) -> tuple[str, ...]:
        return self.source.domains

    def check(self) -> None:
        """Raise a `UserError` for what is wrong with the configuration, before anything is made or fetched."""
        check_text(self.source, self.weights, self._tokenizer_options)

    def prepare_data(self) -> None:
        self.check()
        try:
            self.source.prepare()
            path = prepare_tokenizer(self.source, **self._tokenizer_options, check=self._check_tokens)
            tokenize(self.source, Tokenizer.load(path), self.root)
        except OSError as error:
            raise UserError(
                f"cannot keep tokens under data.root={self.root} ({error}); choose another with MOE_TOY_DATA"
            ) from error

    def _check_tokens(self, tokenizer: Tokenizer) -> None:
        """Raise a `UserError` unless the tokenizer fits the model, and each domain fills a sequence and a block."""
        check_fits(tokenizer, self.vocab_size)
        streams = token_streams(self.source, tokenizer, self.root)
        drawn = [domain for domain, weight in zip(self.domains, self._domain_weights, strict=True) if weight > 0]
        used = [s for s, domain in zip(streams["train"], self.domains, strict=True) if domain in drawn]
        if fill_a_block(used, self.sequence_length) and fill_a_block(streams["validation"], self.validation_length):
            return  # so the tokens of an earlier start say
        check_enough(self.source, tokenizer, "train", self.sequence_length, drawn)
        check_enough(self.source, tokenizer, "validation", self.validation_length, self.domains)

    @property
    def tokenizer_file(self) -> Path:
        """The tokenizer.json in use; there once `prepare_data` has run."""
        return tokenizer_path(self.source, **self._tokenizer_options)

    def setup(self, stage: str | None = None) -> None:
        self.tokenizer = Tokenizer.load(self.tokenizer_file)
        self._text = self.source.fingerprint()
        streams = token_streams(self.source, self.tokenizer, self.root)
        for stream in (stream for split in streams.values() for stream in split):
            stream.check()
        check_fits(self.tokenizer, self.vocab_size)
        sizes = [stream.num_blocks(self.sequence_length) for stream in streams["train"]]
        self.training_order = TrainingOrder(seed=self.seed, sizes=sizes, weights=self._domain_weights)
        self._training = Sequences(streams["train"], self.sequence_length, self.training_order)
        self._validation = Sequences(
            streams["validation"], self.validation_length, self._validation_blocks(streams["validation"], stage)
        )
        if stage == "fit" and self._rank == 0 and ends_by_steps(self.trainer):
            times = times_seen(self.training_order, self.trainer.max_steps * self._samples_per_step)
            seen = dict(zip(self.domains, times, strict=True))
            log_times_seen(seen, dict(zip(self.domains, sizes, strict=True)))
            for logger in self.trainer.loggers:
                if not isinstance(logger, CSVLogger):  # which would write it into a file of its own
                    logger.log_hyperparams({"times_seen": seen})

    @cached_property
    def token_bytes(self) -> Int[Tensor, " vocab"]:
        """Bytes of text per token id; 0 for EOS and for ids that the tokenizer does not use."""
        unused = self.vocab_size - self.tokenizer.vocab_size
        return torch.nn.functional.pad(self.tokenizer.token_bytes, (0, unused))

    def train_dataloader(self) -> DataLoader[TokenBatch]:
        return self._training_loader(self._batches_per_epoch, self.num_workers)

    def step_batches(self) -> Iterable[TokenBatch]:
        """This rank's micro-batches of the coming optimiser step, which the training loader is about to give."""
        return self._training_loader(self._accumulated_batches, num_workers=0)

    def _training_loader(self, num_batches: int, num_workers: int) -> DataLoader[TokenBatch]:
        sampler = TrainingSampler(
            first=lambda: self.position.samples,
            num_batches=num_batches,
            batch_size=self.batch_size,
            rank=self._rank,
            num_ranks=self._num_ranks,
        )
        return TrainingLoader(
            self._training,
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=collate,
            worker_init_fn=ignore_stop_signals,
            **workers(num_workers),
        )

    def val_dataloader(self) -> DataLoader[TokenBatch]:
        batches = even_batches(len(self._validation), self.validation_batch_size, self._num_ranks)
        return DataLoader(
            self._validation,
            batch_sampler=batches[self._rank :: self._num_ranks],
            collate_fn=collate,
            worker_init_fn=ignore_stop_signals,
            **workers(self.num_workers),
        )

    @property
    def position(self) -> Position:
        """What has entered the weights. What was only fetched does not count."""
        if self.trainer is None:
            return self._start
        return self._start.after(self.trainer.global_step, self._samples_per_step, self.sequence_length)

    def state_dict(self) -> dict[str, Any]:
        now = self.position
        state = {"num_samples": now.samples, "num_tokens": now.tokens, "global_step": now.step}
        order = {"order": self.training_order.identity, "text": self._text}
        return state | {"samples_per_step": self._samples_per_step, **order}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._start = saved_position(
            state_dict,
            samples_per_step=self._samples_per_step,
            sequence_length=self.sequence_length,
            by_epochs=self.trainer is not None and self.trainer.max_steps < 1,
        )
        is_other_text = state_dict.get("text", self._text) != self._text  # which earlier versions did not keep
        if state_dict.get("order") != self.training_order.identity or is_other_text:
            log.warning("the text, its domains, weights, sequence_length or seed have changed: other samples follow")

    @cached_property
    def _domain_weights(self) -> list[float]:
        return domain_weights(self.weights, self.domains, self.source.left_out)

    def _validation_blocks(self, streams: Sequence[TokenStream], stage: str | None) -> list[tuple[int, int]]:
        named = dict(zip(self.domains, streams, strict=True))
        told = self._rank == 0 and stage != "validate"  # a run validates before it trains
        level = logging.WARNING if told else logging.DEBUG
        numbers = first_blocks(named, self.validation_length, self.validation_samples, level)
        return [(index, block) for index, number in enumerate(numbers.values()) for block in range(number)]

    @property
    def _num_ranks(self) -> int:
        return self.trainer.world_size if self.trainer is not None else 1

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer is not None else 0

    @property
    def _accumulated_batches(self) -> int:
        return self.trainer.accumulate_grad_batches if self.trainer is not None else 1

    @property
    def _samples_per_step(self) -> int:
        return self.batch_size * self._num_ranks * self._accumulated_batches

    @property
    def _batches_per_epoch(self) -> int:
        """Micro-batches of this rank: the whole run if `max_steps` says how long that is, else the whole steps of
        one pass over the training text."""
        steps = max(1, len(self.training_order) // self._samples_per_step)
        if self.trainer is not None and self.trainer.max_steps > 0:
            steps = self.trainer.max_steps
        return steps * self._accumulated_batches
