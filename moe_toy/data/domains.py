"""A source of text: which domains there are, and the documents of each.

`FileDomains` is a folder of your own files; `hub.py` has the heads of Hugging Face data sets, and `corpus/` the
assembled 11-domain corpus. Configurations pick one by `_target_`; everything downstream knows only `TextSource`.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Literal

from moe_toy.data.readers import FILE_TYPES, check_file, read_documents
from moe_toy.errors import UserError

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")


def data_root(given: str | Path | None) -> Path:
    """The given folder, else $MOE_TOY_DATA, else the user's cache folder."""
    chosen = given or os.environ.get("MOE_TOY_DATA")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("moe_toy", appauthor=False)


class TextSource(ABC):
    """What a data module asks of text."""

    domains: tuple[str, ...]

    @abstractmethod
    def check(self) -> None:
        """Raise a `UserError` for what can be seen without fetching or creating anything."""

    @abstractmethod
    def prepare(self) -> None:
        """Fetch or assemble what is missing; one process calls it before any other method below."""

    @abstractmethod
    def documents(self, domain: str, split: Split) -> Iterator[str]:
        """Non-empty texts, always in the same order."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes when the text changes; cheap, since every start of a run asks for it."""

    def select(self, domains: Sequence[str]) -> TextSource:
        """The same source with these domains only, in this order."""
        if unknown := [name for name in domains if name not in self.domains]:
            raise UserError(f"data.domains names {', '.join(unknown)}; available are {', '.join(self.domains)}")
        if not domains or len(set(domains)) < len(domains):
            raise UserError(f"data.domains={list(domains)} must name at least one domain, and each once")
        selected = copy(self)
        selected.domains = tuple(domains)
        return selected


class FileDomains(TextSource):
    """A folder with one sub-folder or file per domain: .txt, .jsonl (a `text` field) or .parquet (a `text` column).

    With folders `train/` and `validation/` inside `path`, each holding the domains, the split is theirs. Otherwise
    a document goes to validation if its hash falls into `validation_fraction`, so equal texts share a split.
    A .txt file longer than `max_characters` is cut at blank lines into documents, so that one long file can be
    split as well.
    """

    def __init__(
        self,
        *,
        path: str | Path | None,
        validation_fraction: float,
        max_characters: int,
    ) -> None:
        if not 0 < validation_fraction < 1:
            raise UserError(f"data.source.validation_fraction={validation_fraction} must lie between 0 and 1")
        self.path = Path(path).expanduser() if path is not None else None
        self.validation_fraction = validation_fraction
        self.max_characters = max_characters

    @cached_property
    def domains(self) -> tuple[str, ...]:
        return tuple(sorted(self._files["train"]))

    def check(self) -> None:
        """Reads every text file once for its encoding (a few hundred MB a second), parses nothing."""
        for split in SPLITS:
            if missing := [domain for domain in self.domains if domain not in self._files[split]]:
                raise UserError(f"{self.path / split} has no text for {', '.join(missing)}; add it or leave it out")
            for path in (path for domain in self.domains for path in self._files[split][domain]):
                check_file(path)

    def prepare(self) -> None:
        pass  # the files are there

    def documents(self, domain: str, split: Split) -> Iterator[str]:
        paths = self._files[split][domain]
        texts = (text for path in paths for text in read_documents(path, self.max_characters))
        if self._has_splits:
            return texts
        return (text for text in texts if is_validation(text, self.validation_fraction) == (split == "validation"))

    def fingerprint(self) -> str:
        files = (path for split in SPLITS for domain in self.domains for path in self._files[split][domain])
        return files_fingerprint(files, self.validation_fraction, self.max_characters)

    @cached_property
    def _has_splits(self) -> bool:
        return all((self.path / split).is_dir() for split in SPLITS)

    @cached_property
    def _files(self) -> dict[Split, dict[str, list[Path]]]:
        if self.path is None or not self.path.is_dir():
            given = f"data.source.path={self.path} is not a folder" if self.path else "data.source.path is not set"
            raise UserError(f"{given}; give one that holds a sub-folder or file per domain")
        if (self.path / "train").is_dir() and not self._has_splits:
            raise UserError(
                f"{self.path} has train/ but no validation/; add it, or let the domains lie in data.source.path"
            )
        if self._has_splits:
            return {split: _files_by_domain(self.path / split) for split in SPLITS}
        return dict.fromkeys(SPLITS, _files_by_domain(self.path))


def _files_by_domain(folder: Path) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_dir() or any(part.startswith(".") for part in relative.parts):
            continue
        if path.suffix not in FILE_TYPES:
            raise UserError(f"{path}: unknown file type {path.suffix!r}; use {', '.join(FILE_TYPES)} or move it away")
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty; fill or remove it")
        domain = relative.parts[0] if len(relative.parts) > 1 else path.stem
        files.setdefault(domain, []).append(path)
    if not files:
        raise UserError(f"{folder} holds no text; put one sub-folder or {'/'.join(FILE_TYPES)} file per domain there")
    return files


def is_validation(text: str, fraction: float) -> bool:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64


def files_fingerprint(files: Iterable[Path], *options: object) -> str:
    """Name, size and time of change stand for content: a look at gigabytes must not take longer than a blink."""
    stats = [(path.name, path.parent.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return digest(repr((stats, options)))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
