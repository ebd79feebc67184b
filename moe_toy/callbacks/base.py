"""What all routing callbacks share: when to accumulate, when to log, where figures go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor
from torchmetrics import Metric

from moe_toy.errors import UserError
from moe_toy.files.atomic import save_atomically
from moe_toy.files.csv_tables import write_csv
from moe_toy.routing import RoutingTrace
from moe_toy.runs.curve_keys import of_domain, of_layer

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


MOST_KEYS = 150
"""Scalars that the default callbacks log at a validation, at most, of eleven domains."""
DETAILED_LAYERS, MOST_LAYERS = 8, 13
"""Up to how many MoE layers everything that has a value by layer is logged for each, and of how many at most."""


@dataclass(frozen=True)
class Subject:
    """What is being measured: the numbers that metrics are built from and names are made of."""

    num_experts: int
    top_k: int
    layer_ids: tuple[int, ...]
    vocab_size: int
    domains: tuple[str, ...]
    token_bytes: Tensor
    token_text: Callable[[int], str]
    """What a token id stands for."""

    @property
    def sizes(self) -> dict[str, int]:
        """The keywords that every routing metric takes."""
        return {"num_layers": len(self.layer_ids), "num_experts": self.num_experts}

    @property
    def shape(self) -> dict[str, int]:
        """The keywords of a metric that counts by domain."""
        return self.sizes | {"num_domains": len(self.domains)}

    @property
    def is_deep(self) -> bool:
        """Whether there are too many layers for every detail of each."""
        return len(self.layer_ids) > DETAILED_LAYERS


class RoutingCallback(Callback):
    """Feeds metrics with every validation trace; at the end of a validation logs their scores and draws figures.

    A subclass says which metrics (`build`), which curves (`curves`) and which pictures (`figures`). It computes
    nothing: anything with a formula is in `moe_toy.metrics`.
    """

    def __init__(self) -> None:
        self.subject: Subject | None = None
        self.metrics: dict[str, Metric] = {}
        self.logged: dict[str, float] = {}
        """Curves of this validation, once it has ended."""

    def build(self, subject: Subject) -> dict[str, Metric]:
        raise NotImplementedError

    def update(self, outputs: dict[str, Any], trace: RoutingTrace) -> None:
        for metric in self.metrics.values():
            metric.update(trace)

    def curves(self, scores: dict[str, Any]) -> dict[str, float]:
        """Scalars by W&B key, from what each metric computed."""
        return {}

    def figures(self, scores: dict[str, Any]) -> dict[str, Figure]:
        """Pictures by W&B key; called only where a logger takes pictures."""
        return {}

    def histograms(self, scores: dict[str, Any]) -> dict[str, Tensor]:
        """Values of single experts by W&B key, NaN where one has none; called only where a logger takes histograms."""
        return {}

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Forget what was measured before: this may be another model, or other data."""
        self.subject, self.metrics = None, {}

    def on_validation_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        if self.subject is None:
            self.subject = subject_of(trainer, module)
            self.metrics = self.build(self.subject)
        self.logged = {}
        for metric in self.metrics.values():
            metric.to(module.device).reset()

    def on_validation_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        self.update(outputs, outputs["trace"])

    def on_validation_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        scores = {name: metric.compute() for name, metric in self.metrics.items()}  # sums over ranks
        step = {"step": float(trainer.global_step)}  # Lightning would count from 0 while it trains
        self.logged = self.curves(scores)
        check_keys_differ(self, [other for other in trainer.callbacks if isinstance(other, RoutingCallback)])
        module.log_dict(self.logged | step)
        loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger | TensorBoardLogger)]
        if loggers and trainer.is_global_zero:
            for key, figure in self.figures(scores).items():
                log_figure(loggers, key, figure, trainer.global_step)
            for key, values in self.histograms(scores).items():
                log_histogram(loggers, key, values, trainer.global_step)


def check_keys_differ(callback: RoutingCallback, others: Sequence[RoutingCallback]) -> None:
    """Refuse two numbers for one key, of which Lightning would log the mean."""
    for other in others:
        for key in callback.logged.keys() & other.logged.keys():
            pair = other.logged[key], callback.logged[key]
            if not np.array_equal(*pair, equal_nan=True):
                raise UserError(
                    f"{type(other).__name__} and {type(callback).__name__} log {key} as {pair[0]:g} and {pair[1]:g}; "
                    "give both the same settings, or leave one of callbacks.* out"
                )


def subject_of(trainer: Trainer, module: LightningModule) -> Subject:
    config, data = module.model.config, trainer.datamodule
    return Subject(
        num_experts=config.moe.num_experts,
        top_k=config.moe.top_k,
        layer_ids=config.moe_layers,
        vocab_size=config.vocab_size,
        domains=data.domains,
        token_bytes=data.token_bytes,
        token_text=lambda token_id: data.tokenizer.decode([token_id]),
    )


def by_layer(key: str, values: Float[Tensor, " layer"], subject: Subject) -> dict[str, float]:
    """`{key}/layer_03` and so on; of more than `MOST_LAYERS`, that many from the first to the last."""
    rows = range(len(subject.layer_ids))
    if len(rows) > MOST_LAYERS:
        rows = [round(i * (len(rows) - 1) / (MOST_LAYERS - 1)) for i in range(MOST_LAYERS)]
    return {of_layer(key, subject.layer_ids[row]): values[row].item() for row in rows}


def by_domain(key: str, values: Float[Tensor, " domain"], subject: Subject) -> dict[str, float]:
    """`{key}/domain/books` and so on."""
    return {of_domain(key, domain): value for domain, value in zip(subject.domains, values.tolist(), strict=True)}


def log_figure(loggers: Sequence[WandbLogger | TensorBoardLogger], key: str, figure: Figure, step: int) -> None:
    """Hand a figure to every logger as an image of pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = np.asarray(canvas.buffer_rgba())[..., :3]
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [image], step=step)
        else:
            logger.experiment.add_image(key, image, step, dataformats="HWC")


def log_histogram(
    loggers: Sequence[WandbLogger | TensorBoardLogger], key: str, values: Float[Tensor, "*expert"], step: int
) -> None:
    """Hand the distribution of values over experts to every logger; those without a value are left out."""
    known = values[values.isfinite()].float().cpu()
    for logger in loggers if known.numel() else ():
        if isinstance(logger, WandbLogger):
            import wandb

            logger.experiment.log({key: wandb.Histogram(known.numpy()), "trainer/global_step": step})
        else:
            logger.experiment.add_histogram(key, known, step)


def log_table(trainer: Trainer, key: str, table: pd.DataFrame) -> None:
    """Hand a table to W&B, and keep it in the run directory as `<last part of key>.csv`."""
    with save_atomically(Path(trainer.default_root_dir) / f"{key.rpartition('/')[2]}.csv") as part:
        write_csv(table, part)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_table(key, dataframe=table, step=trainer.global_step)
