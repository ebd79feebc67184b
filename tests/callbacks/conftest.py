"""Callbacks without a trainer: what they log of a few traces."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from moe_toy.callbacks.base import RoutingCallback, Subject
from tests.metrics.conftest import random_trace

DOMAINS = ("books", "code", "wiki")


@pytest.fixture
def trace():
    return random_trace(layers=3, batch=12, seq=64, k=2, num_experts=6)


@pytest.fixture
def subject():
    return Subject(
        num_experts=6,
        top_k=2,
        layer_ids=(1, 3, 5),
        vocab_size=20,
        domains=DOMAINS,
        token_bytes=torch.ones(20, dtype=torch.int64),
        token_text="token{}".format,
    )


class Recorder(LightningModule):
    """A module that remembers what callbacks log through it."""

    def __init__(self) -> None:
        super().__init__()
        self.logged: list[dict[str, float]] = []

    def log_dict(self, values: dict[str, float]) -> None:
        self.logged.append(values)


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def trainer(tmp_path):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(accelerator="cpu", default_root_dir=tmp_path, **quiet, enable_model_summary=False)


@pytest.fixture
def curves(subject):
    """`curves(callback, trace, ...)`: the scalars of one validation over these traces."""

    def measure(callback: RoutingCallback, *traces) -> dict[str, float]:
        callback.subject, callback.metrics = subject, callback.build(subject)
        for trace in traces:
            callback.update({"trace": trace}, trace)
        return callback.curves({name: metric.compute() for name, metric in callback.metrics.items()})

    return measure
