"""Replay requests with every cache, there and back again, and note each token."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pandas as pd

from moe_toy.offload.cache import lookups_of, new_caches, simulate
from moe_toy.offload.engine import Engine
from moe_toy.offload.layout import PAGE, round_up
from moe_toy.offload.passes import CALIBRATION, run_passes, step_rows
from moe_toy.offload.prediction import ForcedMisses, points
from moe_toy.offload.readers import CPU, open_reader
from moe_toy.offload.replay import REPLAYED, RowsOfLayers, replay, write_scratch
from moe_toy.offload.requests import Request
from moe_toy.offload.settings import Arm, OffloadSettings

SCRATCH = "rows.bin"
CALIBRATED = 8
"""Tokens that are enough to calibrate by: rows of large models take long."""


class ReplayMeasurement:
    """`expert_bytes` is the size of an expert in each layer. `folder` keeps what is done."""

    def __init__(
        self,
        requests: Sequence[Request],
        num_experts: int,
        expert_bytes: Sequence[int],
        settings: OffloadSettings,
        folder: Path,
    ) -> None:
        num_layers, _, top_k = requests[0].expert_ids.shape
        self.requests, self.num_experts, self.expert_bytes = requests, num_experts, list(expert_bytes)
        self.settings, self.folder, self.device = settings, folder, CPU
        self.num_layers, self.top_k, self.active = num_layers, top_k, num_layers * top_k
        self.num_rows, self.row_bytes = num_layers * num_experts, round_up(max(expert_bytes), PAGE)
        self.arms = settings.arms(num_layers, num_experts, top_k, self.row_bytes)

    def run(self) -> pd.DataFrame:
        """One row per pass, arm, request and step, of which 0 is the prompt."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.scratch = write_scratch(self.folder / SCRATCH, self.row_bytes, self.num_rows)
        arms = [self._calibrate, *(partial(self._run_arm, arm) for arm in self.arms)]
        names = [f"{request.domain} {request.number}" for request in self.requests]
        reader = open_reader(self.scratch, self.settings.store, self.settings.delay_ms / 1000)
        with closing(RowsOfLayers(reader, self.expert_bytes, self.num_experts)) as self.reader:
            return run_passes(arms, names, self.folder, "Replaying")

    def _run_arm(self, arm: Arm, number: int) -> pd.DataFrame:
        request = self.requests[number]
        lookups = lookups_of(request.expert_ids, self.num_experts, request.prompt_length)
        order = arm.policy, lookups, arm.capacity, self.num_layers, self.settings.scope
        with closing(self._engine(arm.capacity)) as engine:
            engine.start(new_caches(*order))
            rows = step_rows(replay(engine, lookups, self.expert_bytes), REPLAYED, request.domain, request.number)
        rows = rows.assign(simulated_reads=simulate(*order).reshape(-1, self.num_layers).sum(1))
        return rows.assign(policy=arm.policy, capacity=arm.capacity)

    def _calibrate(self, number: int) -> pd.DataFrame:
        """Slots are filled in turn, as many as the smallest cache has: reading into few of them again and again takes
        another time."""
        request, parts = self.requests[number], []
        decoded = request.expert_ids[:, request.prompt_length :][:, :CALIBRATED]
        lookups = lookups_of(decoded, self.num_experts)
        num_slots = min(arm.capacity for arm in self.arms)
        with closing(self._engine(num_slots)) as engine:
            buffers = engine.buffers
            for misses, only_page in points(self.top_k):
                engine.buffers = [buffer[:PAGE] for buffer in buffers] if only_page else buffers
                engine.start([ForcedMisses(misses, num_slots)] * self.num_layers)
                expert_bytes = [PAGE] * self.num_layers if only_page else self.expert_bytes
                rows = step_rows(replay(engine, lookups, expert_bytes), REPLAYED, request.domain, request.number)
                parts.append(rows.assign(step=rows.step + 1))
        return pd.concat(parts).assign(policy=CALIBRATION, capacity=self.num_rows)

    def _engine(self, num_slots: int) -> Engine:
        return Engine(self.reader, row_bytes=self.row_bytes, num_slots=num_slots, threads=self.settings.threads)
