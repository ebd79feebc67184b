"""What can be evaluated (`Target`), and where a model that is fed text comes from (`ModelTarget`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from moe_toy.errors import UserError
from moe_toy.results import Results
from moe_toy.routing import RoutingTrace


@runtime_checkable
class Target(Protocol):
    """What `evaluate.py` can be pointed at. Its methods are called in this order."""

    def check(self) -> None:
        """Raise `UserError` for what is wrong, before anything is created or fetched."""

    def prepare(self, out_dir: Path) -> None:
        """Fetch and make what is needed, and raise `UserError` unless `out_dir` is free for the results."""

    def run(self, out_dir: Path) -> Results:
        """Measure. What may be continued after an interruption is kept in `out_dir` meanwhile."""

    def write_report(self, results: Results, out_dir: Path) -> Path:
        """Write `report.html` and return its path."""


@dataclass(frozen=True)
class Observation:
    """What one batch shows of a model."""

    trace: RoutingTrace
    token_losses: Float[Tensor, "batch target"] | None
    """Nats of each token but the first; None where the model does not predict the next token."""


@dataclass(frozen=True)
class RunDescription:
    """A run directory and what its config.yaml holds."""

    path: Path
    config: dict[str, Any]


@dataclass(frozen=True)
class Limits:
    """What a model can read."""

    vocab_size: int
    max_seq_len: int | None
    """None: any length."""


class LoadedModel(ABC):
    """A model ready to be fed. Parameters are None where unknown."""

    vocab_size: int
    total_parameters: int | None
    active_parameters: int | None

    @abstractmethod
    def observe(self, token_ids: Int[Tensor, "batch seq"]) -> Observation: ...


class ModelTarget(ABC):
    """Where a model comes from, as `Reading` asks for it. Nothing is loaded before `load`."""

    kind: str
    name: str
    source: str
    """Path or hub name, as given."""
    batch_size: int

    @abstractmethod
    def check(self) -> None:
        """Raise `UserError` for what can be seen without loading the model."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What decides the routing of a token: JSON that is equal for equal models."""

    @abstractmethod
    def tokenizer(self) -> Path | str:
        """A tokenizer.json or a hub name; raises `UserError` where the target has none."""

    def run_description(self) -> RunDescription | None:
        """The run that made it, where there is one."""
        return None

    @abstractmethod
    def limits(self) -> Limits:
        """Known without loading the model."""

    @abstractmethod
    def load(self) -> LoadedModel: ...


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Every module of the model is as it was afterwards, in training or not."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def check_device(key: str, device: str) -> None:
    """Raise `UserError` unless tensors can be made and read there."""
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without it
        reason = str(error).partition("\n")[0]
        raise UserError(f"{key}={device} is no device of this machine ({reason}); give cpu, cuda or cuda:0") from error
