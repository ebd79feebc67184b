"""Domains from the Hugging Face hub, or from anything else that `datasets.load_dataset` can stream."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import PositiveInt

from moe_toy.data.division import divide, hash_of
from moe_toy.data.domains import SPLITS, Fraction, Split, TextSource, data_root, digest, files_fingerprint
from moe_toy.data.readers import read_parquet
from moe_toy.errors import UserError

log = logging.getLogger(__name__)


class HubDomains(TextSource):
    """The head of one Hugging Face data set per domain, streamed once and kept as parquet under `root`.

    `datasets` maps a domain to the arguments of `datasets.load_dataset`; `split` is `train` unless said. Reading
    stops at `max_documents` or `max_bytes` of a domain, whichever comes first. Where no document falls to a split, one
    does, as `divide` says.
    """

    def __init__(
        self,
        *,
        root: str | Path | None,
        datasets: Mapping[str | int, Mapping[str, Any]],
        text_column: str,
        max_documents: PositiveInt | None,
        max_bytes: PositiveInt | None,
        validation_fraction: Fraction,
    ) -> None:
        self.datasets = {str(domain): dict(arguments) for domain, arguments in datasets.items()}  # YAML reads 2020
        self.domains = tuple(self.datasets)
        self.text_column = text_column
        self.limits = max_documents, max_bytes
        self.validation_fraction = validation_fraction
        self.folder = data_root(root) / "hub"

    def check(self) -> None:
        """Whether the hub answers is known only by asking it."""
        if unfit := [domain for domain in self.domains if "/" in domain]:
            raise UserError(
                f"data.source.datasets: {unfit[0]} cannot be part of the name of a file; call the domain "
                f"{unfit[0].replace('/', '_')}, and give the data set as its path"
            )

    def prepare(self) -> None:
        for domain in self.domains:
            folder = self._domain_folder(domain)
            moved_last = folder / f"{domain}-train.parquet"  # where it is, the domain is complete
            if moved_last.exists():
                continue
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / "lock"):
                if not moved_last.exists():
                    self._fetch(domain, folder)

    def documents(self, domain: str, split: Split) -> Iterator[str]:
        return read_parquet(self._domain_folder(domain) / f"{domain}-{split}.parquet")

    def fingerprint(self) -> str:
        folders = [(domain, self._domain_folder(domain)) for domain in self.domains]
        return files_fingerprint(
            (domain, folder / f"{domain}-{split}.parquet") for domain, folder in folders for split in SPLITS
        )

    def _domain_folder(self, domain: str) -> Path:
        request = [self.datasets[domain], self.text_column, self.limits, self.validation_fraction]
        return self.folder / f"{domain}-{digest(json.dumps(request, sort_keys=True, default=str))}"

    def _fetch(self, domain: str, folder: Path) -> None:
        log.info("Streaming %s: %s", domain, self.datasets[domain])
        parts = {split: folder / f"{split}.part" for split in SPLITS}
        numbers = write_splits(self._head(domain), self.validation_fraction * 2**64, parts)
        if self.validation_fraction < 1 and 0 in numbers.values():
            whole = parts[max(SPLITS, key=numbers.__getitem__)].replace(folder / "whole.part")
            division = divide(lambda _: read_parquet(whole), self.validation_fraction, sys.maxsize)
            if division.remark:
                log.info("%s: %s", domain, division.remark)
            write_splits(read_parquet(whole), division.threshold, parts)
            whole.unlink()
        for split in reversed(SPLITS):
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
            yield from quiet_datasets().load_dataset(**{"split": "train", **self.datasets[domain]}, streaming=True)
        except Exception as error:  # transport, hub and builders each raise their own kinds
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"{domain}: cannot read {self.datasets[domain]} ({reason}); check the name and the network, or use"
                " data=files with local text"
            ) from error


def write_splits(texts: Iterator[str], threshold: float, paths: Mapping[Split, Path]) -> dict[Split, int]:
    """Write each text to the parquet file of its split; how many there are of each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, numbers = pa.schema({"text": pa.string()}), dict.fromkeys(SPLITS, 0)
    with ExitStack() as stack:
        writers = {split: stack.enter_context(pq.ParquetWriter(path, schema)) for split, path in paths.items()}
        while batch := list(islice(texts, 1000)):
            for split, writer in writers.items():
                kept = [text for text in batch if (hash_of(text) < threshold) == (split == "validation")]
                writer.write_table(pa.table({"text": kept}, schema))
                numbers[split] += len(kept)
    return numbers


def quiet_datasets() -> Any:
    """The library, imported late since it takes seconds, quiet, and without its call to count local reads."""
    import datasets

    datasets.disable_progress_bars()
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    return datasets
