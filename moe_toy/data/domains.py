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
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from moe_toy.data.readers import FILE_TYPES, check_file, file_type, read_documents
from moe_toy.errors import UserError
from moe_toy.files.reading import reading

Split = Literal["train", "validation"]
Fraction = Annotated[float, Field(gt=0, lt=1)]
SPLITS: tuple[Split, ...] = ("train", "validation")
NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
}
"""What folders of a split are called."""
HELD_OUT = ("test", "eval", "heldout")
"""What is not to be trained on either."""


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
        """Changes if and only if the text or its division changes; every start of a run asks for it."""

    def select(self, domains: Sequence[str | int]) -> TextSource:
        """The same source with these domains only, in this order."""
        domains = [str(name) for name in domains]  # YAML reads a number where a folder is called 2020
        if unknown := [name for name in domains if name not in self.domains]:
            raise UserError(f"data.domains names {', '.join(unknown)}; available are {', '.join(self.domains)}")
        if not domains or len(set(domains)) < len(domains):
            raise UserError(f"data.domains={list(domains)} must name at least one domain, and each once")
        selected = copy(self)
        selected.domains = tuple(domains)
        return selected


class FileDomains(TextSource):
    """A folder with one sub-folder or file per domain: .txt, .jsonl (a `text` field) or .parquet (a `text` column).

    With folders `train/` and `validation/` (or `valid/`, `val/`, `dev/`) inside `path`, each holding the domains, the
    split is theirs. Otherwise a document goes to validation if its hash falls into `validation_fraction`, so equal
    texts share a split. Links are followed.
    A .txt file longer than `max_characters` is cut at blank lines into documents, so that one long file can be
    split as well.
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
        if self._split_folders is not None:
            return texts
        return (text for text in texts if is_validation(text, self.validation_fraction) == (split == "validation"))

    def fingerprint(self) -> str:
        files = (
            (f"{split}/{domain}", path)
            for split in SPLITS
            for domain in self.domains
            for path in self._files[split][domain]
        )
        return files_fingerprint(files, self.validation_fraction, self.max_characters)

    @cached_property
    def _split_folders(self) -> dict[Split, Path] | None:
        """Where each split lies, if the folder is divided by splits."""
        found = {split: [self.path / name for name in NAMES[split] if (self.path / name).is_dir()] for split in SPLITS}
        if not found["train"]:
            return None
        if len(found["train"]) > 1 or len(found["validation"]) > 1:
            both = ", ".join(str(folder) for folders in found.values() for folder in folders)
            raise UserError(f"{self.path} has more than one folder of a split: {both}; join or rename them")
        if not found["validation"]:
            raise UserError(
                f"{self.path} has train/ but no validation/; add it, or let the domains lie in data.source.path"
            )
        return {split: folder for split, (folder,) in found.items()}

    @cached_property
    def _files(self) -> dict[Split, dict[str, list[Path]]]:
        if self.path is None or not self.path.is_dir():
            given = f"data.source.path={self.path} is not a folder" if self.path else "data.source.path is not set"
            raise UserError(f"{given}; give one that holds a sub-folder or file per domain")
        if self._split_folders is not None:
            return {split: _files_by_domain(folder) for split, folder in self._split_folders.items()}
        return dict.fromkeys(SPLITS, _files_by_domain(self.path))


def _files_by_domain(folder: Path) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    with reading(folder):
        found = sorted(_walk(folder))
    for path in found:
        relative = path.relative_to(folder)
        if file_type(path) not in FILE_TYPES:
            raise UserError(f"{path}: unknown file type {path.suffix!r}; use {', '.join(FILE_TYPES)} or move it away")
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty; fill or remove it")
        domain = relative.parts[0] if len(relative.parts) > 1 else path.stem
        files.setdefault(domain, []).append(path)
    if not files:
        raise UserError(f"{folder} holds no text; put one sub-folder or {'/'.join(FILE_TYPES)} file per domain there")
    _refuse_splits_as_domains(folder, files)
    return files


def _walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder that is not hidden, through links as well."""
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        above = {Path(place).resolve(), *Path(place).resolve().parents}
        for name in [*folders, *names]:
            path = Path(place) / name
            try:
                name.encode()
            except UnicodeEncodeError:
                raise UserError(f"{str(path)!r}: its name is not UTF-8; rename it") from None
            if not path.exists() and not name.startswith("."):
                raise UserError(f"{path} is a link to {os.readlink(path)}, which is not there; mend or remove it")
        for path in (Path(place) / name for name in folders):
            if path.is_symlink() and path.resolve() in above:
                raise UserError(f"{path} is a link to a folder that holds it; remove it")
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place) / name for name in names if not name.startswith("."))


def _refuse(error: OSError) -> None:
    """A folder that cannot be listed would be left out in silence."""
    raise error


def _refuse_splits_as_domains(folder: Path, files: dict[str, list[Path]]) -> None:
    """Files named `train` and `test` are parts of one domain, whose documents would be mixed or trained on."""
    training, held_out = NAMES["train"], (*NAMES["validation"], *HELD_OUT)
    for place, names in [(folder, set(files)), *((folder / d, {path.stem for path in files[d]}) for d in files)]:
        stems = {name.lower() for name in names}
        if (a := stems & set(training)) and (b := stems & set(held_out)):
            raise UserError(
                f"{place} holds {min(a)} and {min(b)}, which are splits and no domains; let them be "
                f"{folder}/train/NAME and {folder}/validation/NAME with the name of the domain, or rename them"
            )


def is_validation(text: str, fraction: float) -> bool:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64


def files_fingerprint(files: Iterable[tuple[str, Path]], *options: object) -> str:
    """Of the content of files, each with a name for what it is part of."""
    return digest(repr(([(part, _content_digest(path, *_state(path))) for part, path in files], options)))


def _state(path: Path) -> tuple[int, ...]:
    """What changes with the content of a file: nobody can set back the time of change that the system keeps."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


@lru_cache(maxsize=100_000)
def _content_digest(path: Path, *state: int) -> str:
    """Read once in a process (about a gigabyte a second), which costs less than the look at the encoding."""
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
