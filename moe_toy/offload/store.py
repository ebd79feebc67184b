"""All experts of a model in one file: a page that says what it holds, then one row per expert."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_toy.errors import UserError
from moe_toy.files.atomic import save_atomically
from moe_toy.model.experts import Experts
from moe_toy.model.transformer import MoETransformer
from moe_toy.offload.layout import DTYPES, PAGE, DType, Layout

MAGIC = b"moe_toy experts 1\n"
AGAIN = "remove it, so that it is written anew from the checkpoint"


@dataclass(frozen=True)
class Store:
    """A file that was found whole."""

    path: Path
    layout: Layout
    digest: str
    """Of the layout and all rows: equal for equal experts."""

    @property
    def num_bytes(self) -> int:
        return PAGE + self.layout.num_rows * self.layout.row_bytes

    def offset(self, row: int) -> int:
        return PAGE + row * self.layout.row_bytes


def rows_of(model: MoETransformer, layout: Layout) -> Iterator[memoryview]:
    """The row of every expert, in order; each is overwritten by the next."""
    row = mmap.mmap(-1, layout.row_bytes)
    gate_up, down = layout.matrices(row, 0)
    for block in model.blocks:
        if block.is_moe:
            experts: Experts = block.ffn.experts
            for expert in range(layout.num_experts):
                gate_up.copy_(experts.gate_up[expert].detach().to(DTYPES[layout.dtype]))
                down.copy_(experts.down[expert].detach().to(DTYPES[layout.dtype]))
                yield memoryview(row)


def write_store(model: MoETransformer, path: Path, dtype: DType) -> Store:
    """Write the experts of a model. The file appears whole or not at all."""
    layout = Layout.of(model.config, dtype)
    digest = _digest(layout)
    with save_atomically(path) as part, part.open("wb") as file:
        file.seek(PAGE)
        for row in rows_of(model, layout):
            digest.update(row)
            file.write(row)
        store = Store(path, layout, digest.hexdigest())
        file.seek(0)
        file.write(_header(store))
        file.flush()
        os.fsync(file.fileno())
    return store


def open_store(path: Path, model: MoETransformer | None = None) -> Store:
    """Read a store through and raise `UserError` unless it is whole and, where a model is given, holds its experts."""
    try:
        with path.open("rb") as file:
            store = _described(path, file.read(PAGE))
            size = os.fstat(file.fileno()).st_size
            if size != store.num_bytes:
                raise UserError(f"{path} is torn: it has {size} bytes instead of {store.num_bytes}; {AGAIN}")
            digest = _digest(store.layout)
            row = memoryview(bytearray(store.layout.row_bytes))
            while count := file.readinto(row):
                digest.update(row[:count])
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); {AGAIN}") from error
    if digest.hexdigest() != store.digest:
        raise UserError(f"{path} is damaged: its rows do not have the digest that it names; {AGAIN}")
    if model is not None and digest_of(model, store.layout.dtype) != store.digest:
        raise UserError(f"{path} holds the experts of another model; {AGAIN}")
    return store


def digest_of(model: MoETransformer, dtype: DType) -> str:
    """The digest of the store that a model would have."""
    layout = Layout.of(model.config, dtype)
    digest = _digest(layout)
    for row in rows_of(model, layout):
        digest.update(row)
    return digest.hexdigest()


def _digest(layout: Layout) -> Any:
    return hashlib.blake2b(json.dumps(layout.as_json()).encode(), digest_size=32)


def _header(store: Store) -> bytes:
    text = json.dumps({"layout": store.layout.as_json(), "digest": store.digest})
    return (MAGIC + text.encode()).ljust(PAGE, b"\0")


def _described(path: Path, header: bytes) -> Store:
    try:
        if not header.startswith(MAGIC):
            raise ValueError("it does not begin as one")
        said = json.loads(header.removeprefix(MAGIC).rstrip(b"\0"))
        layout = Layout(**said["layout"])
        if layout.dtype not in DTYPES or not isinstance(said["digest"], str) or layout.num_rows <= 0:
            raise ValueError("its first page holds other values")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no store of experts ({' '.join(str(error).split())}); {AGAIN}") from error
    return Store(path, layout, said["digest"])
