"""Score routing traces: one call, long-form tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from moe_toy.errors import UserError
from moe_toy.metrics.bootstrap import PoissonResampler
from moe_toy.metrics.cache import Cold
from moe_toy.metrics.routing_tables import CacheTable, SRPTables, VocabularyTables
from moe_toy.metrics.specialization import DOMAIN_FLOOR
from moe_toy.metrics.table_maker import Pass, TableMaker
from moe_toy.metrics.vocabulary import MIN_TOKEN_COUNT
from moe_toy.routing import AXES, DomainNumbers, RoutingTrace

if TYPE_CHECKING:
    import pandas as pd

SEGMENT_LENGTHS = (4, 16, 64, 256)
CACHE_STRIDE = 16
"""The paper's: caches are simulated on every 16th of its 2048 sequences a domain."""


def analyze(
    traces: RoutingTrace | Iterable[RoutingTrace],
    segment_lengths: Sequence[int] = SEGMENT_LENGTHS,
    cache_stride: int = CACHE_STRIDE,
    cold: Cold = "hit",
    intervals: bool = False,
    *,
    min_token_count: int = MIN_TOKEN_COUNT,
    domain_floor: float = DOMAIN_FLOOR,
) -> dict[str, pd.DataFrame]:
    """Tables `srp`, `cache`, `specialization`, `load` and `tokens` of one model's traces, read once, one after another.

    - `srp`: level (model, layer, expert), layer, expert, domain, segment_length, srp, threshold, router_size,
      activation_rate, ci_low, ci_high. Segment lengths that no sequence reaches are left out.
    - `cache`: policy (sch, lru, lfu, belady), scope (layer, model), order (token, layer; of scope model), layer,
      domain, segment_length (sch), capacity, cache_ratio, hit_rate, ci_low, ci_high; over every `cache_stride`-th
      sequence of each domain. Rows without a domain are plain means over the domains. In layer order, what an engine
      gets, first requests are misses whatever `cold` is.
    - `specialization`: layer, expert, kind (domain, input, predicted, target), value. Vocabulary kinds need
      `vocab_size`, token ids and experts in order of rank, and "predicted" needs `predicted_ids`.
    - `load`: layer, expert, domain, activation_rate (share of tokens that activate the expert; sums to top_k).
    - `tokens`: layer, expert, kind (input, predicted, target), rank, token_id, token (its number), strength: what an
      expert owns, strongest first. Absent without `vocab_size`.

    A column is empty where the row pools over it. `layer` is the row of the trace, domains go by name where known, else
    by number. `intervals` adds 95 % bounds (1000 Poisson resamples) to model and layer level. Raises `UserError` if
    there is no trace, or if traces are inconsistent or of different models.
    """
    reading: Pass | None = None
    numbers = DomainNumbers()
    for number, given in enumerate([traces] if isinstance(traces, RoutingTrace) else traces):
        trace = on_host(given)
        trace.check(f"trace {number}")
        if reading is None:
            makers = table_makers(
                trace,
                segment_lengths,
                cache_stride,
                cold,
                intervals,
                min_token_count=min_token_count,
                domain_floor=domain_floor,
                token_text="#{}".format,
            )
            reading = Pass(trace, makers)
        reading.add(numbers.common(trace), number)
    if reading is None:
        raise UserError("there is no trace to analyze; pass a RoutingTrace or a non-empty iterable of them")
    return reading.tables()


def on_host(trace: RoutingTrace) -> RoutingTrace:
    """The same trace in the memory of the host, where metrics that are no sums over tokens count."""
    tensors = {name: getattr(trace, name) for name in AXES}
    return replace(trace, **{name: tensor.cpu() for name, tensor in tensors.items() if tensor is not None})


def table_makers(
    first: RoutingTrace,
    segment_lengths: Sequence[int],
    cache_stride: int,
    cold: Cold,
    intervals: bool,
    *,
    min_token_count: int,
    domain_floor: float,
    token_text: Callable[[int], str],
) -> list[TableMaker]:
    """The makers of the tables of `analyze`, for traces of the model of `first`."""
    resampler = PoissonResampler() if intervals else None
    makers: list[TableMaker] = [
        SRPTables(first, segment_lengths, resampler=resampler, domain_floor=domain_floor),
        CacheTable(first, segment_lengths, stride=cache_stride, cold=cold, resampler=resampler),
    ]
    if first.vocab_size and first.names_leaders:
        makers.append(VocabularyTables(first, token_text, min_token_count=min_token_count))
    return makers
