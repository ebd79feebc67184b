"""Byte-level BPE tokenizers: trained once on the domains at hand, or loaded by file or hub name."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import tokenizers
import torch
from filelock import FileLock
from jaxtyping import Int
from tokenizers import decoders, models, pre_tokenizers, trainers
from torch import Tensor

from moe_toy.data.domains import TextSource
from moe_toy.errors import UserError
from moe_toy.files.atomic import save_atomically

log = logging.getLogger(__name__)

EOS = "<|endoftext|>"
EOS_NAMES = (EOS, "<|end_of_text|>", "<｜end▁of▁sentence｜>", "</s>", "<eos>")
"""What known tokenizers call it; the first that a tokenizer has is taken."""
NUM_BYTES = 256
HUB_NAME = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?", re.ASCII)
LONGEST_WORD = 1000
UNBROKEN = re.compile(rf"\S{{{LONGEST_WORD}}}(?=\S)|\s{{{LONGEST_WORD}}}(?=\s)")


class Tokenizer:
    """Text to ids and back, and how many bytes of text each id stands for."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        backend.no_truncation()  # texts are encoded as they are, for whatever else a tokenizer.json was made
        backend.no_padding()
        backend.encode_special_tokens = True  # their names are ordinary letters where a text holds them
        if getattr(backend.model, "dropout", None):
            backend.model.dropout = None  # else a text would have other tokens each time
        self.backend = backend
        self.vocab_size = backend.get_vocab_size(with_added_tokens=True)
        if (largest := max(backend.get_vocab(with_added_tokens=True).values(), default=0)) >= self.vocab_size:
            raise UserError(
                f"the tokenizer has {self.vocab_size} tokens, but one with id {largest}; number them 0, 1, ..."
            )
        eos_ids = [id for name in EOS_NAMES if (id := backend.token_to_id(name)) is not None]
        if not eos_ids:
            raise UserError(f"the tokenizer has no end-of-text token; known are {', '.join(EOS_NAMES)}")
        self.eos_id = eos_ids[0]

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except BaseException as error:  # the library raises bare Exception; a panic of its Rust code is not even that
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise UserError(f"{path} is not a tokenizer.json ({error}); give another data.tokenizer") from None

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """One list of ids per text, ended by EOS; no BOS. The name of a special token within a text is text."""
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [[*encoding.ids, self.eos_id] for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        return self.backend.decode(list(ids), skip_special_tokens=False)

    @cached_property
    def token_bytes(self) -> Int[Tensor, " vocab"]:
        """Bytes of text per id, exact also where a character is split over tokens: a byte-level token is written
        with one letter per byte. Special tokens such as EOS stand for no text and count 0."""
        settings = json.loads(self.backend.to_str())
        if "ByteLevel" not in json.dumps([settings["pre_tokenizer"], settings["decoder"]]):
            raise UserError("the tokenizer is not byte-level, so bits per byte are undefined; give another one")
        lengths = torch.zeros(self.vocab_size, dtype=torch.int64)
        for token, id in self.backend.get_vocab(with_added_tokens=False).items():
            lengths[id] = len(token)
        for added in settings["added_tokens"]:  # written as they are, not byte by byte
            lengths[added["id"]] = 0 if added["special"] else len(added["content"].encode())
        return lengths

    @cached_property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.backend.to_str().encode()).hexdigest()[:16]


def check_fits(tokenizer: Tokenizer, vocab_size: int) -> None:
    """Refuse a tokenizer that has more tokens than a model, or that is not byte-level."""
    if tokenizer.vocab_size > vocab_size:
        raise UserError(
            f"data.vocab_size={vocab_size} is smaller than the tokenizer's {tokenizer.vocab_size} tokens; raise it"
        )
    _ = tokenizer.token_bytes


def train(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE tokenizer of exactly `vocab_size` entries: EOS (id 0), the 256 bytes and the merges."""
    if vocab_size <= NUM_BYTES:
        raise UserError(f"data.vocab_size={vocab_size} is too small; {NUM_BYTES} bytes and EOS need {NUM_BYTES + 1}")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator((piece for text in texts for piece in break_words(text)), trainer)
    if backend.get_vocab_size() < vocab_size:
        raise UserError(
            f"data.vocab_size={vocab_size} is too large for this text, which yields {backend.get_vocab_size()} tokens;"
            " lower it or add text"
        )
    return Tokenizer(backend)


def break_words(text: str) -> Iterator[str]:
    """The text, cut where anything without a space, or any space, goes on for more than `LONGEST_WORD` characters:
    training takes time with the square of the length of a word."""
    first = 0
    for match in UNBROKEN.finditer(text):
        yield text[first : match.end()]
        first = match.end()
    yield text[first:]


def prepare_tokenizer(
    source: TextSource,
    *,
    name: str | None,
    vocab_size: int,
    sample_bytes: int,
    root: Path,
    check: Callable[[Tokenizer], None] = lambda tokenizer: None,
) -> Path:
    """The file of the tokenizer, made if it is not there. Nothing is written of one that does not pass `check`.

    `name` is a file, a folder with a tokenizer.json or a hub name; None trains on the first documents of every domain
    until they have `sample_bytes`, of which no document gives more: up to twice as many, where the last is long. Cached
    by what it was trained on, so a changed text trains again.
    """
    path = tokenizer_path(source, name=name, vocab_size=vocab_size, sample_bytes=sample_bytes, root=root)
    if path.exists():
        check(Tokenizer.load(path))
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            if name is None:
                log.info("Training a tokenizer of %d tokens on %s", vocab_size, ", ".join(source.domains))
                tokenizer = train(_balanced_sample(source, sample_bytes), vocab_size)
            else:
                tokenizer = _from_hub(name)
            check(tokenizer)
            with save_atomically(path) as part:
                part.write_text(tokenizer.backend.to_str(pretty=True), encoding="utf-8")  # its `save` hides OSErrors
    return path


def tokenizer_path(source: TextSource, *, name: str | None, vocab_size: int, sample_bytes: int, root: Path) -> Path:
    if name is None:
        return root / "tokenizers" / f"{source.fingerprint()}-{vocab_size}-{sample_bytes}.json"
    place = Path(name)
    in_folder = place / "tokenizer.json"
    if os.path.isfile(in_folder):
        return in_folder
    if name.endswith(".json") or (os.path.lexists(name) and not place.is_dir()):
        if not place.is_file():
            raise UserError(f"data.tokenizer={name}: no such file; give a tokenizer.json, a hub name or null")
        return place
    if not HUB_NAME.fullmatch(name):
        raise UserError(
            f"data.tokenizer={name}: no such file, nor a name on the hub; give a tokenizer.json, a hub name or null"
        )
    return root / "tokenizers" / f"{quote(name, safe='')}.json"


def _balanced_sample(source: TextSource, sample_bytes: int) -> Iterator[str]:
    for domain in source.domains:
        left = sample_bytes
        for text in source.documents(domain, "train"):
            sample = text.encode()[:sample_bytes]
            yield sample.decode(errors="ignore")
            left -= len(sample)
            if left <= 0:
                break


def _from_hub(name: str) -> Tokenizer:
    from huggingface_hub import hf_hub_download  # which obeys HF_HUB_OFFLINE and knows what was fetched before

    try:
        return Tokenizer(tokenizers.Tokenizer.from_file(hf_hub_download(name, "tokenizer.json")))
    except Exception as error:  # transport and parser each raise their own kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"data.tokenizer={name}: cannot fetch it ({reason}); check the name and the network, give a"
            " tokenizer.json, or null to train one"
        ) from error
