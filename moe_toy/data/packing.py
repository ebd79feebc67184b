"""Documents to token streams, and streams to sequences of equal length.

Each (domain, split) becomes one file of token ids: its documents one after another, each ended by EOS. Any sequence
length is cut from the same file, so only a new text or tokenizer costs another pass.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Int
from torch import Tensor

from moe_toy.data.domains import SPLITS, Split, TextSource
from moe_toy.data.tokenizer import Tokenizer
from moe_toy.errors import UserError
from moe_toy.files.progress import with_progress

log = logging.getLogger(__name__)

CHARACTERS_AT_ONCE = 2**20
"""Of the documents that are encoded together, unless one is longer: encoding takes 200 times as many bytes."""
VERSION = 2
"""Of how texts become tokens."""


@dataclass(frozen=True)
class TokenStream:
    """The tokens of one domain and split, cut on demand into consecutive blocks; what is left over is dropped.

    It holds a path, not the tokens, so workers receive a few bytes.
    """

    path: Path
    dtype: str

    @property
    def checksum_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.sha256")

    @property
    def is_complete(self) -> bool:
        return self.path.exists() and self.checksum_path.exists()

    def check(self) -> None:
        """Refuse tokens that are not those that were written (about a gigabyte a second)."""
        with _missing_is_a_mistake(self.path), self.path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest().encode() != self.checksum_path.read_bytes():
                raise UserError(f"{self.path} is damaged; remove its folder, and the next start tokenises anew")

    @property
    def num_tokens(self) -> int:
        return len(_open(self.path, self.dtype))

    def num_blocks(self, length: int) -> int:
        return self.num_tokens // length

    def block(self, index: int, length: int) -> Int[Tensor, " seq"]:
        tokens = _open(self.path, self.dtype)[index * length : (index + 1) * length]
        return torch.from_numpy(tokens.astype(np.int64))


@lru_cache(maxsize=256)
def _open(path: Path, dtype: str) -> np.ndarray:
    with _missing_is_a_mistake(path):
        if path.stat().st_size == 0:  # which cannot be mapped
            return np.empty(0, dtype)
        return np.memmap(path, dtype, mode="r")


@contextmanager
def _missing_is_a_mistake(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{error.filename or path} has vanished; start again to tokenise the text anew") from error


def token_streams(source: TextSource, tokenizer: Tokenizer, root: Path) -> dict[Split, list[TokenStream]]:
    """The streams of every domain, in the order of `source.domains`, whether tokenised yet or not."""
    dtype = "uint16" if tokenizer.vocab_size <= 2**16 else "uint32"
    folder = root / "tokens" / f"{source.fingerprint()}-{tokenizer.fingerprint}-v{VERSION}"
    return {
        split: [TokenStream(folder / f"{domain}-{split}.{dtype}", dtype) for domain in source.domains]
        for split in SPLITS
    }


def first_blocks(
    streams: dict[str, TokenStream], length: int, wanted: int, level: int = logging.WARNING
) -> dict[str, int]:
    """How many of the `wanted` blocks each domain has: at least one, or a `UserError`. A lack is logged at `level`."""
    available = {domain: stream.num_blocks(length) for domain, stream in streams.items()}
    for domain, number in available.items():
        if number == 0:
            raise UserError(
                f"{domain} has {streams[domain].num_tokens} validation tokens, less than one block of"
                f" data.validation_length={length}; add text, shorten the blocks or raise"
                " data.source.validation_fraction"
            )
        if number < wanted:
            log.log(level, "%s has %d validation blocks, not %d: using them all", domain, number, wanted)
    return {domain: min(number, wanted) for domain, number in available.items()}


def fill_a_block(streams: Sequence[TokenStream], length: int) -> bool:
    """Whether all are tokenised already and each has a block of this length."""
    return all(stream.is_complete and stream.num_blocks(length) for stream in streams)


def tokenize(source: TextSource, tokenizer: Tokenizer, root: Path, splits: Sequence[Split] = SPLITS) -> None:
    """Write the streams that are missing; of two processes at once the second waits for the first."""
    streams = {split: token_streams(source, tokenizer, root)[split] for split in splits}
    if _complete(streams):
        return
    folder = streams[splits[0]][0].path.parent
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if _complete(streams):
            return
        start = time.perf_counter()
        for domain in with_progress(source.domains, "Tokenising"):
            for split in splits:
                stream = streams[split][source.domains.index(domain)]
                if not stream.is_complete:
                    _write(source.documents(domain, split), tokenizer, stream)
        num_tokens = sum(stream.num_tokens for split in splits for stream in streams[split])
        log.info("Tokenised %.2f M tokens in %.1f s", num_tokens / 1e6, time.perf_counter() - start)


def _complete(streams: dict[Split, list[TokenStream]]) -> bool:
    return all(stream.is_complete for split in streams.values() for stream in split)


def _batches(documents: Iterator[str]) -> Iterator[list[str]]:
    texts: list[str] = []
    size = 0
    for text in documents:
        if texts and size + len(text) > CHARACTERS_AT_ONCE:
            yield texts
            texts, size = [], 0
        texts.append(text)
        size += len(text)
    if texts:
        yield texts


def _write(documents: Iterator[str], tokenizer: Tokenizer, stream: TokenStream) -> None:
    """The tokens, then their checksum, which says that they are complete."""
    part, sha256 = stream.path.with_suffix(".part"), hashlib.sha256()
    with part.open("wb") as file:
        for texts in _batches(documents):
            for ids in tokenizer.encode(texts):
                tokens = np.array(ids, dtype=stream.dtype).tobytes()
                sha256.update(tokens)
                file.write(tokens)
    part.replace(stream.path)
    part.write_text(sha256.hexdigest())
    part.replace(stream.checksum_path)
