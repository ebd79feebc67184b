"""The same measurements in Python: one call from a model to pandas tables."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from moe_toy.data.domains import FileDomains, TextSource, data_root
from moe_toy.errors import UserError
from moe_toy.evaluation.checkpoint import CheckpointTarget, LoadedCheckpoint
from moe_toy.evaluation.evaluation import write_report
from moe_toy.evaluation.huggingface import HuggingFaceTarget
from moe_toy.evaluation.pretrained_model import PretrainedModel
from moe_toy.evaluation.reading import Reading
from moe_toy.evaluation.router_hooks import family_of
from moe_toy.evaluation.run_text import LENGTH, RunText
from moe_toy.evaluation.samples import Text
from moe_toy.evaluation.settings import MetricSettings, Options
from moe_toy.evaluation.target import Limits, LoadedModel, ModelTarget, Target
from moe_toy.evaluation.trace_files import TraceTarget
from moe_toy.model.transformer import MoETransformer
from moe_toy.results import Results
from moe_toy.routing import RoutingTrace
from moe_toy.runs.run_directory import RunDirectory
from moe_toy.traces.trace_file import save_trace

if TYPE_CHECKING:
    import pandas as pd


def evaluate(
    model: Any,
    data: TextSource | str | Path | None = None,
    *,
    tokenizer: str | Path | None = None,
    samples: int = 64,
    length: int | None = None,
    batch_size: int = 8,
    **settings: Any,
) -> dict[str, pd.DataFrame]:
    """The tables of `moe_toy.results`.

    `model` is a run directory or .ckpt file of train.py, a folder or hub name of a transformers model, a trace file or
    a folder of them, a `RoutingTrace`, or a model in memory, ours or of transformers, which needs `tokenizer` (a
    tokenizer.json or a hub name). `data` is a folder with a sub-folder or file per domain; None is the text
    that a run was trained on, and the corpus for other models. `samples` blocks of `length` tokens are read from each
    domain; None is the length that the run was validated on, and 512 for other text. `settings` are those
    of `MetricSettings`.
    """
    text = RunText(validation_samples=samples, validation_length=length)
    if data is not None:
        text = Text(source_of(data), data_root(None), samples, length or LENGTH)
    tokenizer = None if tokenizer is None else str(tokenizer)
    options = Options(metrics=MetricSettings(**settings), data=lambda: text, tokenizer=tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        target, out_dir = target_of(model, Path(folder), batch_size, options), Path(folder) / "results"
        target.check()
        target.prepare(out_dir)
        return target.run(out_dir).tables


def target_of(model: Any, folder: Path, batch_size: int, options: Options) -> Target:
    if isinstance(model, RoutingTrace):
        save_trace(model, folder / "trace.safetensors")
        model = folder / "trace.safetensors"
    if not isinstance(model, str | Path):
        return ModelInMemory(model, batch_size, options)
    path = Path(model)
    if path.suffix == ".ckpt" or RunDirectory(path).checkpoints.is_dir():
        return CheckpointTarget(path=path, device=None, batch_size=batch_size, options=options)
    if path.exists() and not (path / "config.json").exists():
        return TraceTarget(
            path=path, num_experts=None, sequence_length=None, tokenizer=options.tokenizer, options=options
        )
    return HuggingFaceTarget(path=model, batch_size=batch_size, options=options)


def source_of(data: TextSource | str | Path) -> TextSource:
    if isinstance(data, TextSource):
        return data
    return FileDomains(path=data, validation_fraction=1.0, max_characters=20_000)


class ModelInMemory(ModelTarget):
    kind = "memory"

    def __init__(self, model: torch.nn.Module, batch_size: int, options: Options) -> None:
        self.model = model
        self.reading = Reading(options)
        self.name = self.source = type(model).__name__
        self.batch_size = batch_size

    def check(self) -> None:
        if not hasattr(self.model, "config"):
            raise UserError(f"a {self.name} is no model that evaluate knows; pass one of ours or of transformers")
        if getattr(self.model.config, "is_encoder_decoder", False):
            raise UserError(
                f"a {self.name} has an encoder and a decoder; save it, and measure one of them with evaluate.py "
                "target=huggingface target.path=FOLDER target.part=encoder"
            )
        self.reading.check(self)

    def prepare(self, out_dir: Path) -> None:
        self.reading.prepare(self, out_dir)

    def run(self, out_dir: Path) -> Results:
        return self.reading.run(self, out_dir)

    def write_report(self, results: Results, out_dir: Path) -> Path:
        return write_report(results, out_dir)

    def identity(self) -> dict[str, Any]:
        return {}

    def tokenizer(self) -> Path:
        raise UserError("a model in memory does not name its tokenizer; pass tokenizer=")

    def limits(self) -> Limits:
        if isinstance(self.model, MoETransformer):
            return Limits(self.model.config.vocab_size, self.model.config.max_seq_len)
        text = self.model.config.get_text_config()
        return Limits(text.vocab_size, getattr(text, "max_position_embeddings", None))

    def load(self) -> LoadedModel:
        if isinstance(self.model, MoETransformer):
            return LoadedCheckpoint(self.model)
        return PretrainedModel(self.model, family_of(self.model.config.model_type))
