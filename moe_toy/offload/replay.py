"""The engine driven by recorded routing: real reads of rows of given sizes, without weights and without computing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from jaxtyping import Float

from moe_toy.errors import UserError
from moe_toy.files.atomic import save_atomically
from moe_toy.offload.decode import COLUMNS
from moe_toy.offload.engine import Engine
from moe_toy.offload.layout import PAGE, round_up
from moe_toy.offload.readers import Buffer, Reader

REPLAYED = (*COLUMNS, "bytes")
CHUNK = 2**24
SCRATCH_BYTES = 2**30


@dataclass(frozen=True)
class Scratch:
    """A file of bytes that mean nothing. Rows that find no place in it begin again at its front, so that the experts of
    a large model need no large disk; that is fair where nothing between the file and the slots remembers it."""

    path: Path
    row_bytes: int
    num_rows: int

    def offset(self, row: int) -> int:
        return row % self.num_rows * self.row_bytes


def write_scratch(path: Path, row_bytes: int, num_rows: int, most_bytes: int = SCRATCH_BYTES) -> Scratch:
    """At most `most_bytes`, but at least one row. Its bytes are random: no file system can leave them out."""
    row_bytes = round_up(row_bytes, PAGE)
    scratch = Scratch(path, row_bytes, max(min(num_rows, most_bytes // row_bytes), 1))
    random = np.random.default_rng(0)
    with save_atomically(path) as part, part.open("wb") as file:
        left = scratch.row_bytes * scratch.num_rows
        while left:
            left -= file.write(random.bytes(min(left, CHUNK)))
        file.flush()
        os.fsync(file.fileno())
    return scratch


class RowsOfLayers(Reader):
    """Rows whose length depends on their layer, of a reader whose rows are as long as the longest."""

    def __init__(self, reader: Reader, expert_bytes: Sequence[int], num_experts: int) -> None:
        self.reader, self.num_experts = reader, num_experts
        self.lengths = [round_up(size, PAGE) for size in expert_bytes]

    def read(self, row: int, buffer: Buffer) -> None:
        self.reader.read(row, buffer[: self.lengths[row // self.num_experts]])

    def close(self) -> None:
        self.reader.close()


def replay(
    engine: Engine, lookups: Sequence[Sequence[int]], expert_bytes: Sequence[int]
) -> Float[np.ndarray, "step column"]:
    """What every step took, as `REPLAYED`; `lookups` go layer by layer, an expert of each has `expert_bytes`.

    The engine has begun with empty caches. Seconds are those of fetching alone.
    """
    if len(lookups) % len(expert_bytes):
        raise UserError(f"{len(lookups)} lookups are no whole number of tokens of {len(expert_bytes)} layers")
    costs = []
    for first in range(0, len(lookups), len(expert_bytes)):
        before, start, num_bytes = engine.account.now(), perf_counter(), 0
        for layer, (items, size) in enumerate(zip(lookups[first:], expert_bytes, strict=False)):
            reads = engine.account.reads
            for _ in engine.fetch(layer, items):
                pass
            num_bytes += (engine.account.reads - reads) * round_up(size, PAGE)
        seconds = perf_counter() - start
        spent = (late - early for late, early in zip(engine.account.now(), before, strict=True))
        costs.append([seconds, *spent, num_bytes])
    return np.array(costs)
