"""One pass over routing traces that feeds a list of table makers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from moe_toy.errors import UserError
from moe_toy.metrics.base import RoutingMetric
from moe_toy.metrics.bootstrap import Interval
from moe_toy.routing import RoutingTrace

if TYPE_CHECKING:
    import pandas as pd

Result = TypeVar("Result")
BATCH = 256
"""Sequences counted at a time; bounds memory."""


class TableMaker(ABC):
    """Counts traces, then makes tables of the counts. It holds nothing before its first `update`."""

    @abstractmethod
    def memory(self, num_domains: int) -> int:
        """Bytes that it holds once it has seen `num_domains` domains."""

    @abstractmethod
    def update(self, trace: RoutingTrace) -> None:
        """Count. All traces share one numbering of domains; `trace.domains` names those seen so far, if any."""

    @abstractmethod
    def tables(self) -> dict[str, pd.DataFrame]:
        """By name. Tables of one name that several makers make follow one another."""


class Pass:
    """Traces of one model on their way to all makers: each trace is looked at once."""

    def __init__(self, first: RoutingTrace, makers: Sequence[TableMaker]) -> None:
        self.makers = makers
        self._model = _model(first)

    def memory(self, num_domains: int) -> int:
        return sum(maker.memory(num_domains) for maker in self.makers)

    def add(self, trace: RoutingTrace, number: int) -> None:
        """Raises `UserError` if the trace, the `number`-th, is of another model than the first."""
        if _model(trace) != self._model:
            raise UserError(
                f"trace {number} is of another model than trace 0: (layer_ids, experts, experts per token, vocabulary, "
                f"has predictions, has domains, has token ids, expert sizes) ="
                f" {_model(trace)}, not {self._model}; analyze one model at a time"
            )
        for first in range(0, trace.expert_ids.shape[1], BATCH):
            batch = trace.select(slice(first, first + BATCH))
            batch = replace(batch, expert_ids=batch.expert_ids.to(torch.int32))  # once for all makers
            self._let_all(partial(_update, trace=batch))

    def tables(self) -> dict[str, pd.DataFrame]:
        import pandas as pd  # half a second

        parts: dict[str, list[pd.DataFrame]] = {}
        for tables in self._let_all(lambda maker: maker.tables()):
            for name, table in tables.items():
                parts.setdefault(name, []).append(table)
        return {name: pd.concat(made, ignore_index=True) if made[1:] else made[0] for name, made in parts.items()}

    def _let_all(self, do: Callable[[TableMaker], Result]) -> list[Result]:
        """As many makers at a time as torch may use threads, each with one thread: what they do is small."""
        num_threads = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as threads:
                return list(threads.map(do, self.makers))
        finally:
            torch.set_num_threads(num_threads)  # also for threads that others start later


def _update(maker: TableMaker, trace: RoutingTrace) -> None:
    maker.update(trace)


def make_room(metrics: Iterable[RoutingMetric], trace: RoutingTrace) -> None:
    """Let metrics that count by domain know the domains that the trace names for the first time."""
    for metric in metrics:
        if metric.num_domains < len(trace.domains):
            metric.extend_domains(len(trace.domains))


def bounds(interval: Interval | None, like: Tensor) -> dict[str, Tensor]:
    """Columns `ci_low` and `ci_high`; NaN without an interval."""
    low, high = interval or (torch.full_like(like, torch.nan),) * 2
    return {"ci_low": low, "ci_high": high}


def long_table(
    rows: list[tuple[dict[str, Sequence[Any]], dict[str, Tensor]]], axes: list[str], values: list[str]
) -> pd.DataFrame:
    """One row per cell of the tensors, whose axes are those of the first dict that are longer than one, in order."""
    import pandas as pd  # half a second

    parts = []
    for index, columns in rows:
        part = pd.DataFrame(list(product(*index.values())), columns=list(index), dtype=object)
        for name in values:
            part[name] = columns[name].flatten().cpu().numpy()
        parts.append(part)
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*axes, *values])
    numbers = {name: "Int64" for name in ("layer", "expert", "segment_length", "capacity") if name in axes}
    return table[[*axes, *values]].astype(numbers)


def _model(trace: RoutingTrace) -> tuple[Any, ...]:
    """What traces must have in common."""
    has = (trace.predicted_ids is not None, trace.domain_ids is not None, trace.token_ids is not None)
    has += (trace.expert_bytes,)
    return tuple(trace.layer_ids), trace.num_experts, trace.expert_ids.shape[3], trace.vocab_size, *has
