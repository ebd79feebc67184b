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
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveInt

from moe_toy.data.division import Division, divide
from moe_toy.data.folders import SPLITS, Split, files_by_split
from moe_toy.data.readers import check_file, log_once, read_documents
from moe_toy.errors import UserError
from moe_toy.files.digest import file_digest

SHOWN = 4
"""Small domains of which is said how they are divided."""
Fraction = Annotated[float, Field(gt=0, le=1)]
"""Of the text that is for validation."""


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
    left_out: tuple[str, ...] = ()
    """Domains that there are beside the selected ones."""

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
        """Changes if and only if the text or its division changes; every start of a run asks for it."""

    def select(self, domains: Sequence[str | int]) -> TextSource:
        """The same source with these domains only, in this order."""
        numbers = [name for name in domains if not isinstance(name, str)]
        domains = [str(name) for name in domains]  # YAML reads a number where a folder is called 2020
        if unknown := [name for name in domains if name not in self.domains]:
            hint = " (YAML read a number: quote such a name twice, data.domains=\"['2024_01']\")" if numbers else ""
            raise UserError(f"data.domains names {', '.join(unknown)}{hint}; available are {', '.join(self.domains)}")
        if not domains or len(set(domains)) < len(domains):
            raise UserError(f"data.domains={list(domains)} must name at least one domain, and each once")
        selected = copy(self)
        selected.domains = tuple(domains)
        selected.left_out = (*self.left_out, *(name for name in self.domains if name not in domains))
        return selected


def selected(source: TextSource, domains: Sequence[str | int] | None) -> TextSource:
    """The source with these domains only; null: with all."""
    return source if domains is None else source.select(domains)


class FileDomains(TextSource):
    """A folder with one sub-folder or file per domain: .txt, .jsonl (a `text` field) or .parquet (a `text` column).

    With folders `train/` and `validation/` (or `valid/`, `val/`, `dev/`) inside `path`, each holding the domains, the
    split is theirs. Otherwise a document goes to validation if its hash falls into `validation_fraction`, so equal
    texts share a split, and each split of a domain has at least one; 1 takes all text for validation. Links are
    followed. A .txt file longer than `max_characters` is cut at blank lines into documents, so that one long file can
    be split as well.
    """

    def __init__(
        self,
        *,
        path: str | Path | None,
        validation_fraction: Fraction,
        max_characters: PositiveInt,
    ) -> None:
        self.path = Path(path).expanduser() if path is not None else None
        self.validation_fraction = validation_fraction
        self.max_characters = max_characters
        self._divisions: dict[str, Division] = {}

    @cached_property
    def domains(self) -> tuple[str, ...]:
        return tuple(sorted(self._files["train"]))

    def check(self) -> None:
        """Reads every text file once for its encoding (a few hundred MB a second), and divides the domains."""
        for path in (path for split in SPLITS for domain in self.domains for path in self._files[split][domain]):
            check_file(path)
        for domain in [] if self._is_divided else self.domains:
            if (number := self._division(domain).num_documents) < 2:
                raise UserError(
                    f"{domain} has {number} document{'' if number == 1 else 's'} to divide into training and validation"
                    " text; add text or blank lines, give folders train/ and validation/, or take all of it for "
                    "validation (data.source.validation_fraction=1)"
                )

    def prepare(self) -> None:
        remarks = {d: self._division(d).remark for d in ([] if self._is_divided else self.domains)}
        small = {domain: remark for domain, remark in remarks.items() if remark}
        for domain in list(small)[:SHOWN]:
            log_once(f"{domain} is small: {small[domain]}")
        if len(small) > SHOWN:
            log_once(f"and so are {len(small) - SHOWN} more domains")

    def documents(self, domain: str, split: Split) -> Iterator[str]:
        paths = self._files[split][domain]
        if self._is_divided:
            return self._read(paths, self.max_characters)
        division = self._division(domain)
        texts = self._read(paths, division.max_characters)
        return (text for text in texts if division.is_validation(text) == (split == "validation"))

    def fingerprint(self) -> str:
        files = (
            (f"{split}/{domain}", path)
            for split in SPLITS
            for domain in self.domains
            for path in self._files[split][domain]
        )
        options = self.validation_fraction, self.max_characters
        divided = [] if self._is_divided else map(self._division, self.domains)
        few = [(division.threshold, division.max_characters) for division in divided if division.remark]
        return files_fingerprint(files, *options, *few)

    @cached_property
    def _files(self) -> dict[Split, dict[str, list[Path]]]:
        if self.path is None or not self.path.is_dir():
            given = f"data.source.path={self.path} is not a folder" if self.path else "data.source.path is not set"
            raise UserError(f"{given}; give one that holds a sub-folder or file per domain")
        return files_by_split(self.path)

    @property
    def _is_divided(self) -> bool:
        """By folders: where it is not, both splits are of the same files."""
        return self._files["train"] is not self._files["validation"]

    def _division(self, domain: str) -> Division:
        if domain not in self._divisions:
            read = partial(self._read, self._files["train"][domain])
            self._divisions[domain] = divide(read, self.validation_fraction, self.max_characters)
        return self._divisions[domain]

    def _read(self, paths: Sequence[Path], max_characters: int) -> Iterator[str]:
        return (text for path in paths for text in read_documents(path, max_characters))


def files_fingerprint(files: Iterable[tuple[str, Path]], *options: object) -> str:
    """Of the content of files, each with a name for what it is part of."""
    return digest(repr(([(part, file_digest(path)) for part, path in files], options)))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
