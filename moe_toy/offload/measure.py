"""Decode the same text with experts at hand and with every cache, there and back again, and note each token."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from moe_toy.files.atomic import save_atomically
from moe_toy.files.progress import with_progress
from moe_toy.model.transformer import MoETransformer
from moe_toy.offload.cache import lookups_of, new_caches, simulate
from moe_toy.offload.decode import COLUMNS, Decoded, decode
from moe_toy.offload.engine import Account, Engine
from moe_toy.offload.experts import offloaded
from moe_toy.offload.layout import DTYPES, PAGE, Layout
from moe_toy.offload.prediction import ForcedMisses, points
from moe_toy.offload.readers import open_reader
from moe_toy.offload.settings import Arm, OffloadSettings
from moe_toy.offload.store import Store, open_store, write_store

log = logging.getLogger(__name__)
STORE = "experts.bin"
RESIDENT, CALIBRATION = "resident", "calibration"
"""Stand for a policy in the tables."""
PASSES = 2
"""There and back: what drifts meets all arms alike."""


class Text(NamedTuple):
    domain: str
    number: int
    token_ids: Int[Tensor, " seq"]


class Cell(NamedTuple):
    """A part of a pass, kept when it is done."""

    name: str
    run: Callable[[], pd.DataFrame]

    def __str__(self) -> str:
        return self.name


class Measurement:
    """`texts`: blocks of tokens by domain. `folder` keeps the store and what is done, for a run that is interrupted."""

    def __init__(
        self, model: MoETransformer, texts: Mapping[str, Sequence[Tensor]], settings: OffloadSettings, folder: Path
    ) -> None:
        self.model = model.eval().to(DTYPES[settings.dtype])
        self.settings, self.folder = settings, folder
        self.layout = Layout.of(model.config, settings.dtype)
        self.arms = settings.arms(self.layout.num_layers, self.layout.num_experts, model.config.moe.top_k)
        self.sequences = [
            Text(domain, number, block[: settings.num_tokens])
            for domain, blocks in texts.items()
            for number, block in enumerate(blocks[: settings.samples_per_domain])
        ]

    def run(self) -> pd.DataFrame:
        """One row per pass, arm, sequence and step, of which 0 is the prompt."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.store = self._store()
        self.expected = [self._decode_resident(sequence) for sequence in self.sequences]
        cells = [Cell(CALIBRATION, self._calibrate), Cell(RESIDENT, self._run_resident)]
        cells += [Cell(str(arm), lambda arm=arm: self._run_arm(arm)) for arm in self.arms]
        order = [(number, cell) for number in range(PASSES) for cell in cells[:: 1 - 2 * (number % 2)]]
        parts = []
        for place, cell in enumerate(with_progress([cell for _, cell in order], "Decoding")):
            part = self._kept(self.folder / f"{place:03}.parquet", cell)
            parts.append(part.assign(**{"pass": order[place][0]}))
        return pd.concat(parts, ignore_index=True)

    def _store(self) -> Store:
        path = self.folder / STORE
        if not path.exists():
            write_store(self.model, path, self.settings.dtype)
        return open_store(path, self.model)

    def _kept(self, path: Path, cell: Cell) -> pd.DataFrame:
        if not path.exists():
            table = cell.run()
            with save_atomically(path) as part:
                table.to_parquet(part, index=False)
        return pd.read_parquet(path)

    def _decode_resident(self, sequence: Text) -> Decoded:
        return decode(self.model, sequence.token_ids, self.settings.prompt_length, Account())

    def _run_resident(self) -> pd.DataFrame:
        parts = [self._rows(sequence, self._decode_resident(sequence)) for sequence in self.sequences]
        return pd.concat(parts).assign(policy=RESIDENT, capacity=self.layout.num_rows)

    def _run_arm(self, arm: Arm) -> pd.DataFrame:
        parts = []
        with closing(self._engine(arm.capacity)) as engine, offloaded(self.model, engine, self.layout):
            for sequence, expected in zip(self.sequences, self.expected, strict=True):
                lookups = lookups_of(expected.expert_ids, self.layout.num_experts, self.settings.prompt_length)
                order = arm.policy, lookups, arm.capacity, self.layout.num_layers, self.settings.scope
                engine.start(new_caches(*order))
                decoded = decode(self.model, sequence.token_ids, self.settings.prompt_length, engine.account)
                if not torch.equal(decoded.logits, expected.logits):
                    raise RuntimeError(f"{arm} decodes other logits than the resident model")
                simulated = simulate(*order).reshape(-1, self.layout.num_layers).sum(1)
                parts.append(self._rows(sequence, decoded).assign(simulated_reads=simulated))
        return pd.concat(parts).assign(policy=arm.policy, capacity=arm.capacity)

    def _calibrate(self) -> pd.DataFrame:
        """Decode with a known number of misses, in all slots at once; of two sequences, which is enough."""
        parts = []
        with closing(self._engine(self.layout.num_rows)) as engine, offloaded(self.model, engine, self.layout):
            rows = engine.buffers
            for row, buffer in enumerate(rows):
                engine.reader.read(row, buffer)
            for sequence in self.sequences[:2]:
                for misses, only_page in points(self.model.config.moe.top_k):
                    engine.buffers = [row[:PAGE] for row in rows] if only_page else rows
                    engine.start([ForcedMisses(misses)] * self.layout.num_layers)
                    decoded = decode(self.model, sequence.token_ids, self.settings.prompt_length, engine.account)
                    row_bytes = PAGE if only_page else self.layout.row_bytes
                    parts.append(self._rows(sequence, decoded, row_bytes))
        return pd.concat(parts).assign(policy=CALIBRATION, capacity=self.layout.num_rows)

    def _engine(self, num_slots: int) -> Engine:
        settings = self.settings
        reader = open_reader(self.store, settings.store, settings.delay_ms / 1000)
        return Engine(reader, row_bytes=self.layout.row_bytes, num_slots=num_slots, threads=settings.threads)

    def _rows(self, sequence: Text, decoded: Decoded, row_bytes: int | None = None) -> pd.DataFrame:
        table = pd.DataFrame(decoded.costs, columns=list(COLUMNS))
        table = table.assign(domain=sequence.domain, sequence=sequence.number, step=np.arange(len(table)))
        return table.assign(bytes=table.reads * (row_bytes or self.layout.row_bytes))
