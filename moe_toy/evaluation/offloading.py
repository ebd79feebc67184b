"""What `offload` adds to an evaluation: decoding with experts in slow memory, or a replay of that, measured."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from moe_toy.errors import UserError
from moe_toy.evaluation.samples import Samples
from moe_toy.model.config import ModelConfig
from moe_toy.model.transformer import MoETransformer
from moe_toy.offload.layout import PAGE, Layout, round_up
from moe_toy.offload.requests import requests_of
from moe_toy.offload.settings import OffloadSettings
from moe_toy.results import Results
from moe_toy.routing import RoutingTrace

FOLDER = "offload"
"""In an output folder, until all is measured: the store, and what is done."""


class Offloading:
    def __init__(self, settings: OffloadSettings) -> None:
        self.settings = settings

    def check(self, config: ModelConfig, device: str, samples: Samples) -> None:
        """Raise `UserError` for what cannot be measured, before anything is created."""
        settings = self.settings
        if device != "cpu" and not (device.startswith("cuda") and settings.store == "host"):
            raise UserError(
                f"offload={settings.store} decodes on the CPU, not on target.device={device}; give target.device=cpu, "
                "or offload=host for a GPU of NVIDIA"
            )
        layout = Layout.of(config, settings.dtype)
        settings.arms(layout.num_layers, layout.num_experts, config.moe.top_k, layout.row_bytes)
        for name, room in (
            ("data.validation_length", samples.length),
            ("max_seq_len of the model", config.max_seq_len),
        ):
            if settings.num_tokens > room:
                raise UserError(
                    f"offload.prompt_length + offload.decode_length is {settings.num_tokens}, but {name} is {room}; "
                    "lower one of them"
                )
        if settings.samples_per_domain > samples.per_domain:
            raise UserError(
                f"offload.samples_per_domain is {settings.samples_per_domain}, but data.validation_samples "
                f"{samples.per_domain}; lower it"
            )

    def check_traces(self, traces: Iterable[RoutingTrace], expert_bytes: float | None) -> None:
        """The same for recorded routing."""
        if self.settings.prefetch != "none":
            raise UserError(
                f"offload.prefetch={self.settings.prefetch} asks routers of a model, and recorded routing has none; "
                "give offload.prefetch=none"
            )
        found = requests_of(traces, self.settings, expert_bytes)
        row_bytes = round_up(max(found.expert_bytes), PAGE)
        sizes = len(found.expert_bytes), found.num_experts, found.requests[0].expert_ids.shape[2]
        needed = max(arm.capacity for arm in self.settings.arms(*sizes, row_bytes)) * row_bytes
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > memory / 2:
            raise UserError(
                f"offload.cache_ratios, cache_bytes: a cache of {needed / 1e9:.1f} GB is too large for this machine, "
                f"which has {memory / 1e9:.1f} GB of memory; lower them"
            )

    def prepare(self, num_bytes: int, out_dir: Path) -> None:
        """See that the disk has room for a file of `num_bytes` and can be read as it is to be."""
        folder = next(path for path in (out_dir.resolve(), *out_dir.resolve().parents) if path.is_dir())
        free = shutil.disk_usage(folder).free
        if num_bytes > free:
            raise UserError(
                f"the experts take {num_bytes / 1e9:.2f} GB in {out_dir}, where {free / 1e9:.2f} GB are free; make "
                "room or choose another out_dir"
            )
        if self.settings.store == "disk" and not _reads_directly(folder):
            raise UserError(
                f"the file system of {out_dir} cannot be read past the page cache (O_DIRECT); choose another out_dir "
                "or offload=page_cache"
            )

    def decode(self, results: Results, load: Callable[[], MoETransformer], samples: Samples, out_dir: Path) -> Results:
        """Results with the tables `offload` and `offload_steps` and `summary["offload"]`; as they are where they have
        these."""
        if FOLDER in results.summary:
            return results
        from moe_toy.offload.measure import Measurement  # pandas takes half a second

        count = self.settings.samples_per_domain
        texts = {domain: list(next(samples.batches(domain, count))) for domain in samples.domains}
        return _with_tables(results, Measurement(load(), texts, self.settings, out_dir / FOLDER))

    def replay(
        self, results: Results, traces: Iterable[RoutingTrace], expert_bytes: float | None, out_dir: Path
    ) -> Results:
        """The same for recorded routing, of which nothing is computed."""
        if FOLDER in results.summary:
            return results
        from moe_toy.offload.measure_replay import ReplayMeasurement  # pandas takes half a second

        found = requests_of(traces, self.settings, expert_bytes)
        return _with_tables(results, ReplayMeasurement(*found, self.settings, out_dir / FOLDER))

    @staticmethod
    def remove_parts(out_dir: Path) -> None:
        shutil.rmtree(out_dir / FOLDER, ignore_errors=True)


def store_bytes(config: ModelConfig, settings: OffloadSettings) -> int:
    layout = Layout.of(config, settings.dtype)
    return PAGE + layout.num_rows * layout.row_bytes


def _with_tables(results: Results, measurement: Any) -> Results:
    from moe_toy.offload.tables import tables_of  # pandas takes half a second

    tables, facts = tables_of(measurement)
    return replace(results, summary=results.summary | {FOLDER: facts}, tables=results.tables | tables)


def _reads_directly(folder: Path) -> bool:
    """Tried with a file that has no name."""
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_DIRECT))
    except OSError:
        return False
    return True
