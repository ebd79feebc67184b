"""Where rows of experts come from: a disk, the page cache, or other memory. `read(row, buffer)` returns with the buffer
full, or raises."""

from __future__ import annotations

import errno
import os
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from moe_toy.errors import UserError

Kind = Literal["disk", "page_cache", "host"]
Buffer = memoryview | Tensor
"""Bytes of a slot: of main memory, or of a GPU."""
CPU = torch.device("cpu")


@runtime_checkable
class Rows(Protocol):
    """A file of rows."""

    @property
    def path(self) -> Path: ...

    def offset(self, row: int) -> int:
        """Where a row begins, at a whole page."""


class Reader(ABC):
    """Several threads may read at once."""

    @abstractmethod
    def read(self, row: int, buffer: Buffer) -> None:
        """Fill the buffer, aligned to pages and whole pages long, with a row or its beginning. Raises `UserError` where
        that cannot be had."""

    @abstractmethod
    def close(self) -> None: ...


class FileReader(Reader):
    """Rows of a file, read past the page cache of the system (`direct`) or through it."""

    def __init__(self, store: Rows, *, direct: bool) -> None:
        self.store = store
        self.file = open_direct(store.path) if direct else os.open(store.path, os.O_RDONLY)

    def read(self, row: int, buffer: memoryview) -> None:
        try:
            count = os.preadv(self.file, [buffer], self.store.offset(row))
        except OSError as error:
            raise UserError(
                f"cannot read expert row {row} of {self.store.path} ({error.strerror}); see whether the disk is well"
            ) from error
        if count != len(buffer):
            raise UserError(
                f"expert row {row} of {self.store.path} ends after {count} of {len(buffer)} bytes: the file was cut "
                "meanwhile; start again"
            )

    def close(self) -> None:
        os.close(self.file)


class HostReader(Reader):
    """Rows in main memory that no computation reads: the whole file, copied there once. For slots of a GPU that memory
    is pinned, and rows are copied on a stream of their own, beside what is computed. Not measured on a GPU yet."""

    def __init__(self, store: Rows, device: torch.device) -> None:
        self.store = store
        rows = torch.from_numpy(np.fromfile(store.path, np.uint8))
        on_gpu = device.type == "cuda"
        self.bytes = rows.pin_memory() if on_gpu else rows
        self.stream = torch.cuda.Stream(device) if on_gpu else None

    def read(self, row: int, buffer: Buffer) -> None:
        start = self.store.offset(row)
        rows = self.bytes[start : start + len(buffer)]
        slot = buffer if isinstance(buffer, Tensor) else torch.frombuffer(buffer, dtype=torch.uint8)
        if self.stream is None:
            slot.copy_(rows)  # lets other threads run
        else:
            self._copy_to_gpu(rows, slot)

    def close(self) -> None:
        del self.bytes

    def _copy_to_gpu(self, rows: Tensor, slot: Tensor) -> None:
        # Kernels that were launched earlier may still read what is in the slot.
        self.stream.wait_stream(torch.cuda.default_stream(slot.device))
        with torch.cuda.stream(self.stream):
            slot.copy_(rows, non_blocking=True)
            copied = self.stream.record_event()
        copied.synchronize()


class SlowReader(Reader):
    """Another reader with a known delay before every row: what if memory were farther away?"""

    def __init__(self, reader: Reader, delay: float) -> None:
        self.reader, self.delay = reader, delay

    def read(self, row: int, buffer: Buffer) -> None:
        time.sleep(self.delay)
        self.reader.read(row, buffer)

    def close(self) -> None:
        self.reader.close()


def open_reader(store: Rows, kind: Kind, delay: float = 0.0, device: torch.device = CPU) -> Reader:
    """`delay`: seconds that every row takes longer. `device`: where slots are; only "host" fills those of a GPU."""
    reader: Reader = HostReader(store, device) if kind == "host" else FileReader(store, direct=kind == "disk")
    return SlowReader(reader, delay) if delay else reader


def open_direct(path: Path) -> int:
    """Open a file to read it past the page cache, which not all file systems offer."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise UserError(
            f"the file system of {path} cannot be read past the page cache (O_DIRECT); choose another out_dir, or "
            "offload=page_cache"
        ) from error
