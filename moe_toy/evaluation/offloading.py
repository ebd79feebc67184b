"""What `offload` adds to the evaluation of a checkpoint: decoding with experts in slow memory, measured."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from moe_toy.errors import UserError
from moe_toy.evaluation.samples import Samples
from moe_toy.model.config import ModelConfig
from moe_toy.model.transformer import MoETransformer
from moe_toy.offload.layout import PAGE, Layout
from moe_toy.offload.settings import OffloadSettings
from moe_toy.results import Results

FOLDER = "offload"
"""In an output folder, until all is measured: the store, and what is done."""


class Offloading:
    def __init__(self, settings: OffloadSettings) -> None:
        self.settings = settings

    def check(self, config: ModelConfig, device: str, samples: Samples) -> None:
        """Raise `UserError` for what cannot be measured, before anything is created."""
        settings = self.settings
        if device != "cpu":
            raise UserError(f"offload decodes on the CPU, not on target.device={device}; give target.device=cpu")
        settings.arms(len(config.moe_layers), config.moe.num_experts, config.moe.top_k)
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

    def prepare(self, config: ModelConfig, out_dir: Path) -> None:
        """See that the disk has room for the store and can be read as it is to be."""
        folder = next(path for path in (out_dir.resolve(), *out_dir.resolve().parents) if path.is_dir())
        layout = Layout.of(config, self.settings.dtype)
        needed, free = PAGE + layout.num_rows * layout.row_bytes, shutil.disk_usage(folder).free
        if needed > free:
            raise UserError(
                f"the experts take {needed / 1e9:.2f} GB in {out_dir}, where {free / 1e9:.2f} GB are free; make room "
                "or choose another out_dir"
            )
        if self.settings.store == "disk" and not _reads_directly(folder):
            raise UserError(
                f"the file system of {out_dir} cannot be read past the page cache (O_DIRECT); choose another out_dir "
                "or offload=page_cache"
            )

    def run(self, results: Results, load: Callable[[], MoETransformer], samples: Samples, out_dir: Path) -> Results:
        """Results with the tables `offload` and `offload_steps` and `summary["offload"]`; as they are where they have
        these."""
        if FOLDER in results.summary:
            return results
        from moe_toy.offload.measure import Measurement  # pandas takes half a second
        from moe_toy.offload.tables import tables_of

        count = self.settings.samples_per_domain
        texts = {domain: list(next(samples.batches(domain, count))) for domain in samples.domains}
        measurement = Measurement(load(), texts, self.settings, out_dir / FOLDER)
        tables, facts = tables_of(measurement)
        return replace(results, summary=results.summary | {FOLDER: facts}, tables=results.tables | tables)

    @staticmethod
    def remove_parts(out_dir: Path) -> None:
        shutil.rmtree(out_dir / FOLDER, ignore_errors=True)


def _reads_directly(folder: Path) -> bool:
    """Tried with a file that has no name."""
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_DIRECT))
    except OSError:
        return False
    return True
