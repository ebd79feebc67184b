"""The text of an evaluation: the first blocks of every domain, tokenised for the model at hand."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from moe_toy.corpus.domains import CorpusDomains
from moe_toy.data.domains import FileDomains, TextSource
from moe_toy.data.packing import first_blocks, token_streams, tokenize
from moe_toy.data.tokenizer import Tokenizer, prepare_tokenizer
from moe_toy.errors import UserError


@dataclass(frozen=True)
class Text:
    """What a model reads: how many blocks of which length of every domain of a source."""

    source: TextSource
    root: Path
    validation_samples: int
    validation_length: int

    @property
    def words(self) -> str:
        """Which text it is, for people."""
        return words_of(self.source)

    def check_unchanged(self) -> None:
        """Once the source is prepared, raise `UserError` unless it is the text that is meant."""


class Samples:
    """The first validation blocks of every domain of a text.

    Documents follow one another, each ended by EOS, and are cut into blocks; what one tokenizer made of one text is
    kept under `root`.
    """

    def __init__(self, text: Text, tokenizer: Path | str) -> None:
        self.text = text
        self.source = text.source
        self.root = text.root
        self.per_domain = text.validation_samples
        self.length = text.validation_length
        self._tokenizer_name = str(tokenizer)

    @property
    def domains(self) -> tuple[str, ...]:
        return self.source.domains

    def prepare(self) -> None:
        """Assemble and tokenise what is missing; raises `UserError` for want of text, network or disk."""
        self.source.check()
        self.source.prepare()
        self.text.check_unchanged()
        try:
            options = {"name": self._tokenizer_name, "vocab_size": 0, "sample_bytes": 0}  # of training one
            self.tokenizer = Tokenizer.load(prepare_tokenizer(self.source, root=self.root, **options))
            tokenize(self.source, self.tokenizer, self.root, splits=("validation",))
        except OSError as error:
            raise UserError(
                f"cannot keep tokens under {self.root} ({error}); choose another with MOE_TOY_DATA"
            ) from error
        streams = token_streams(self.source, self.tokenizer, self.root)["validation"]
        self._streams = dict(zip(self.domains, streams, strict=True))
        self._blocks = first_blocks(self._streams, self.length, self.per_domain, logging.INFO)

    def count(self, domain: str) -> int:
        return self._blocks[domain]

    def batches(self, domain: str, batch_size: int) -> Iterator[Int[Tensor, "batch seq"]]:
        blocks = [self._streams[domain].block(index, self.length) for index in range(self._blocks[domain])]
        return iter(torch.stack(blocks).split(batch_size))

    def identity(self) -> dict[str, Any]:
        """JSON that is equal for equal samples."""
        return {
            "text": self.source.fingerprint(),
            "domains": list(self.domains),
            "tokenizer": self.tokenizer.fingerprint,
            "samples_per_domain": self.per_domain,
            "sequence_length": self.length,
        }


def words_of(source: TextSource) -> str:
    if isinstance(source, FileDomains):
        return f"the files in {source.path}"
    return "the assembled corpus" if isinstance(source, CorpusDomains) else "Hugging Face data sets"
