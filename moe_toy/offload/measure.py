"""Decode the same text with experts at hand and with every cache, there and back again, and note each token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from moe_toy.model.transformer import MoETransformer
from moe_toy.offload.cache import lookups_of, new_caches, simulate
from moe_toy.offload.decode import COLUMNS, Decoded, decode
from moe_toy.offload.engine import Account, Engine
from moe_toy.offload.experts import offloaded
from moe_toy.offload.layout import DTYPES, PAGE, Layout
from moe_toy.offload.passes import CALIBRATION, RESIDENT, run_passes, step_rows
from moe_toy.offload.prediction import ForcedMisses, points
from moe_toy.offload.readers import open_reader
from moe_toy.offload.settings import Arm, OffloadSettings
from moe_toy.offload.store import Store, open_store, write_store

STORE = "experts.bin"


def multiply_one_by_one(model: MoETransformer) -> None:
    """Let resident experts be computed as those in slots are: the grouped product of a GPU rounds otherwise."""
    for block in model.blocks:
        if block.is_moe:
            block.ffn.experts.backend = "loop"


class Text(NamedTuple):
    domain: str
    number: int
    token_ids: Int[Tensor, " seq"]


class Measurement:
    """`texts`: blocks of tokens by domain. `folder` keeps the store and what is done, for a run that is interrupted."""

    def __init__(
        self, model: MoETransformer, texts: Mapping[str, Sequence[Tensor]], settings: OffloadSettings, folder: Path
    ) -> None:
        self.model = model.eval().to(DTYPES[settings.dtype])
        self.device = model.rotation.device
        if self.device.type == "cuda":
            multiply_one_by_one(model)
        self.settings, self.folder = settings, folder
        self.layout = Layout.of(model.config, settings.dtype)
        self.num_rows, self.row_bytes = self.layout.num_rows, self.layout.row_bytes
        self.top_k, self.active = model.config.moe.top_k, self.layout.num_layers * model.config.moe.top_k
        self.arms = settings.arms(self.layout.num_layers, self.layout.num_experts, self.top_k, self.row_bytes)
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
        arms = [self._calibrate, self._run_resident, *(partial(self._run_arm, arm) for arm in self.arms)]
        names = [f"{sequence.domain} {sequence.number}" for sequence in self.sequences]
        with closing(
            open_reader(self.store, self.settings.store, self.settings.delay_ms / 1000, self.device)
        ) as self.reader:
            return run_passes(arms, names, self.folder, "Decoding")

    def _store(self) -> Store:
        path = self.folder / STORE
        if not path.exists():
            write_store(self.model, path, self.settings.dtype)
        return open_store(path, self.model)

    def _decode_resident(self, sequence: Text) -> Decoded:
        return decode(self.model, sequence.token_ids, self.settings.prompt_length, Account())

    def _run_resident(self, number: int) -> pd.DataFrame:
        sequence = self.sequences[number]
        rows = self._rows(sequence, self._decode_resident(sequence))
        return rows.assign(policy=RESIDENT, capacity=self.num_rows)

    def _run_arm(self, arm: Arm, number: int) -> pd.DataFrame:
        sequence, expected = self.sequences[number], self.expected[number]
        lookups = lookups_of(expected.expert_ids, self.layout.num_experts, self.settings.prompt_length)
        ahead = self.settings.slots_ahead(self.top_k)
        order = arm.policy, lookups, arm.capacity - ahead, self.layout.num_layers, self.settings.scope
        with closing(self._engine(arm.capacity, ahead)) as engine, offloaded(self.model, engine, self.layout):
            engine.start(new_caches(*order))
            decoded = decode(self.model, sequence.token_ids, self.settings.prompt_length, engine.account)
        if not torch.equal(decoded.logits, expected.logits):
            raise RuntimeError(f"{arm} decodes other logits than the resident model")
        simulated = simulate(*order).reshape(-1, self.layout.num_layers).sum(1)
        rows = self._rows(sequence, decoded).assign(simulated_reads=simulated)
        return rows.assign(policy=arm.policy, capacity=arm.capacity)

    def _calibrate(self, number: int) -> pd.DataFrame:
        """Decode with a known number of misses, all experts having slots."""
        sequence, parts = self.sequences[number], []
        with closing(self._engine(self.num_rows)) as engine, offloaded(self.model, engine, self.layout):
            rows = engine.buffers
            for row, buffer in enumerate(rows):
                engine.reader.read(row, buffer)
            for misses, only_page in points(self.top_k):
                engine.buffers = [row[:PAGE] for row in rows] if only_page else rows
                engine.start([ForcedMisses(misses)] * self.layout.num_layers)
                decoded = decode(self.model, sequence.token_ids, self.settings.prompt_length, engine.account)
                parts.append(self._rows(sequence, decoded, PAGE if only_page else self.row_bytes))
        return pd.concat(parts).assign(policy=CALIBRATION, capacity=self.num_rows)

    def _engine(self, num_slots: int, ahead: int = 0) -> Engine:
        sizes = {"row_bytes": self.row_bytes, "num_slots": num_slots, "ahead": ahead}
        device = None if self.device.type == "cpu" else self.device
        return Engine(self.reader, threads=self.settings.threads, device=device, **sizes)

    def _rows(self, sequence: Text, decoded: Decoded, row_bytes: int | None = None) -> pd.DataFrame:
        table = step_rows(decoded.costs, COLUMNS, sequence.domain, sequence.number)
        size = row_bytes or self.row_bytes
        return table.assign(bytes=table.reads * size, speculative_bytes=table.speculative_reads * size)
