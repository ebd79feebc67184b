"""Score routing traces: one call, long-form tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from moe_toy.errors import UserError
from moe_toy.metrics.base import RoutingMetric
from moe_toy.metrics.bootstrap import Interval, PoissonResampler
from moe_toy.metrics.cache import CacheHitRate, Cold, Policy, Scope
from moe_toy.metrics.specialization import domain_scores
from moe_toy.metrics.srp import SRP
from moe_toy.metrics.srp_intervals import SRPBootstrap
from moe_toy.metrics.strongest_tokens import strongest_tokens
from moe_toy.metrics.vocabulary import VocabularyScores, VocabularySpecialization
from moe_toy.routing import RoutingTrace

if TYPE_CHECKING:
    import pandas as pd

BATCH = 256
"""Sequences counted at a time; bounds memory."""
SPECIALIZATION_LENGTH = 16
"""The segment length whose activation rates the paper takes for domain specialization."""


def analyze(
    traces: RoutingTrace | Iterable[RoutingTrace],
    segment_lengths: Sequence[int] = (4, 16, 64, 256),
    cache_stride: int = 16,
    cold: Cold = "hit",
    intervals: bool = False,
    *,
    min_token_count: int = 20,
    domain_floor: float = 1e-5,
) -> dict[str, pd.DataFrame]:
    """Tables `srp`, `cache`, `specialization`, `load` and `tokens` of one model's traces, read once, one after another.

    - `srp`: level (model, layer, expert), layer, expert, domain, segment_length, srp, threshold, router_size,
      activation_rate, ci_low, ci_high. Segment lengths that no sequence reaches are left out.
    - `cache`: policy (sch, lru, lfu, belady), scope (layer, model), layer, domain, segment_length (sch), capacity,
      cache_ratio, hit_rate, ci_low, ci_high; over every `cache_stride`-th sequence of each domain. Rows without a
      domain are plain means over the domains.
    - `specialization`: layer, expert, kind (domain, input, predicted, target), value. Vocabulary kinds need
      `vocab_size`, and "predicted" needs `predicted_ids`.
    - `load`: layer, expert, domain, activation_rate (share of tokens that activate the expert; sums to top_k).
    - `tokens`: layer, expert, kind (input, predicted, target), rank, token_id, token (its number), strength: what an
      expert owns, strongest first. Absent without `vocab_size`.

    A column is empty where the row pools over it. `layer` is the row of the trace, domains go by name where known, else
    by number. `intervals` adds 95 % bounds (1000 Poisson resamples) to model and layer level. Raises `UserError` if
    there is no trace, or if traces are inconsistent or of different models.
    """
    analysis: _Analysis | None = None
    for number, trace in enumerate([traces] if isinstance(traces, RoutingTrace) else traces):
        trace.check(f"trace {number}")
        if analysis is None:
            analysis = _Analysis(
                trace,
                segment_lengths,
                cache_stride=cache_stride,
                cold=cold,
                intervals=intervals,
                min_token_count=min_token_count,
                domain_floor=domain_floor,
            )
        analysis.add(trace, number)
    if analysis is None:
        raise UserError("there is no trace to analyze; pass a RoutingTrace or a non-empty iterable of them")
    return analysis.tables()


class _Analysis:
    """The metrics of one model, by the parameters that the tables show, and the names of the domains so far."""

    def __init__(
        self,
        first: RoutingTrace,
        segment_lengths: Sequence[int],
        *,
        cache_stride: int,
        cold: Cold,
        intervals: bool,
        min_token_count: int,
        domain_floor: float,
    ) -> None:
        self.model = _model(first)
        sizes = {"num_layers": len(first.expert_ids), "num_experts": first.num_experts}
        top_k = first.expert_ids.shape[3]
        resampler = PoissonResampler() if intervals else None
        lengths = list(dict.fromkeys(segment_lengths))
        self.segment_lengths = lengths
        self.srp = {m: SRP(**sizes, segment_length=m) for m in {*lengths, SPECIALIZATION_LENGTH, 1}}
        self.bootstrap = {m: SRPBootstrap(**sizes, segment_length=m, resampler=resampler) for m in lengths if resampler}
        self.caches = {
            (policy, scope, m): CacheHitRate(
                **sizes,
                top_k=top_k,
                policy=policy,
                scope=scope,
                segment_length=m or 1,
                cold=cold,
                sample_stride=cache_stride,
                resampler=resampler,
            )
            for policy, scope in product(get_args(Policy), get_args(Scope))
            for m in (lengths if policy == "sch" else [None])
        }
        self.domain_floor = domain_floor
        kinds = ["input", "target"] if first.predicted_ids is None else ["input", "predicted", "target"]
        self.vocabulary = first.vocab_size and VocabularySpecialization(
            **sizes, vocab_size=first.vocab_size, min_token_count=min_token_count, kinds=kinds
        )
        self.domains: list[str | int] = []

    def add(self, trace: RoutingTrace, number: int) -> None:
        if _model(trace) != self.model:
            raise UserError(
                f"trace {number} is of another model than trace 0: (layers, experts, experts per token, vocabulary, "
                f"has predictions, has domains) = {_model(trace)}, not {self.model}; analyze one model at a time"
            )
        trace = self._with_common_domains(trace)
        for first in range(0, trace.expert_ids.shape[1], BATCH):
            batch = trace.select(slice(first, first + BATCH))
            batch = replace(batch, expert_ids=batch.expert_ids.to(torch.int32))  # once for all metrics
            for metric in self._by_domain():
                metric.update(batch)
            if self.vocabulary:
                self.vocabulary.update(batch)

    def _by_domain(self) -> list[RoutingMetric]:
        counted = self.srp, self.bootstrap, self.caches
        return [metric for group in counted for metric in group.values()]

    def _with_common_domains(self, trace: RoutingTrace) -> RoutingTrace:
        """Each trace numbers its own domains; here equal names get equal numbers."""
        if trace.domain_ids is None:
            return trace
        present = trace.domain_ids.long().unique().tolist()
        for name in (trace.domains[d] if trace.domains else d for d in present):
            if name not in self.domains:
                self.domains.append(name)
        for metric in self._by_domain():
            if metric.num_domains < len(self.domains):
                metric.extend_domains(len(self.domains))
        common = torch.zeros(max(present, default=0) + 1, dtype=torch.int64)
        for d in present:
            common[d] = self.domains.index(trace.domains[d] if trace.domains else d)
        return trace.with_domains(common[trace.domain_ids.long().cpu()])

    def tables(self) -> dict[str, pd.DataFrame]:
        vocabulary = self.vocabulary.compute() if self.vocabulary else {}
        tables = {
            "srp": self._srp(),
            "cache": self._cache(),
            "specialization": self._specialization(vocabulary),
            "load": self._load(),
        }
        if vocabulary:
            tables["tokens"] = strongest_tokens(vocabulary, "#{}".format, range(self.srp[1].num_layers))
        return tables

    def _srp(self) -> pd.DataFrame:
        rows = []
        for m in self.segment_lengths:
            metric, scores = self.srp[m], self.srp[m].compute()
            if scores.model.srp.isnan():
                continue
            bounds = self.bootstrap[m].compute() if self.bootstrap else None
            for level, suffix in product(["model", "layer", "expert"], ["", "_by_domain"] if self.domains else [""]):
                values = getattr(scores, level + suffix)
                interval = bounds and getattr(bounds, level + suffix)
                axes = {
                    "level": [level],
                    "domain": self.domains if suffix else [None],
                    "layer": [None] if level == "model" else range(metric.num_layers),
                    "expert": range(metric.num_experts) if level == "expert" else [None],
                    "segment_length": [m],
                }
                rows.append((axes, vars(values) | _bounds(interval, values.srp)))
        order = ["level", "layer", "expert", "domain", "segment_length"]
        return _table(rows, order, ["srp", "threshold", "router_size", "activation_rate", "ci_low", "ci_high"])

    def _cache(self) -> pd.DataFrame:
        rows = []
        for (policy, scope, m), metric in self.caches.items():
            scores = metric.compute()
            pooled = scores.hit_rate, scores.interval, [None]
            by_domain = scores.by_domain, scores.interval_by_domain, self.domains
            for hit_rate, interval, domains in [pooled, by_domain] if self.domains else [pooled]:
                axes = {
                    "policy": [policy],
                    "scope": [scope],
                    "domain": domains,
                    "layer": range(metric.num_layers) if scope == "layer" else [None],
                    "segment_length": [m],
                    "capacity": scores.capacity.tolist(),
                }
                ratio = scores.cache_ratio.expand(hit_rate.shape)
                rows.append((axes, {"cache_ratio": ratio, "hit_rate": hit_rate} | _bounds(interval, hit_rate)))
        order = ["policy", "scope", "layer", "domain", "segment_length", "capacity"]
        return _table(rows, order, ["cache_ratio", "hit_rate", "ci_low", "ci_high"])

    def _specialization(self, vocabulary: dict[str, VocabularyScores]) -> pd.DataFrame:
        rates = self.srp[SPECIALIZATION_LENGTH].compute().expert_by_domain.activation_rate
        values = {"domain": domain_scores(rates, self.domain_floor).value}
        values |= {kind: scores.value for kind, scores in vocabulary.items()}
        rows = [(self._experts() | {"kind": [kind]}, {"value": value}) for kind, value in values.items()]
        return _table(rows, ["layer", "expert", "kind"], ["value"])

    def _load(self) -> pd.DataFrame:
        scores = self.srp[1].compute()  # a segment of one token: the share of tokens
        rows = [({"domain": [None]} | self._experts(), {"activation_rate": scores.expert.activation_rate})]
        if self.domains:
            rates = scores.expert_by_domain.activation_rate
            rows.append(({"domain": self.domains} | self._experts(), {"activation_rate": rates}))
        return _table(rows, ["layer", "expert", "domain"], ["activation_rate"])

    def _experts(self) -> dict[str, Sequence[Any]]:
        return {"layer": range(self.srp[1].num_layers), "expert": range(self.srp[1].num_experts)}


def _model(trace: RoutingTrace) -> tuple[Any, ...]:
    """What traces must have in common."""
    layers, _, _, k = trace.expert_ids.shape
    has = (trace.predicted_ids is not None, trace.domain_ids is not None)
    return layers, trace.num_experts, k, trace.vocab_size, *has


def _bounds(interval: Interval | None, like: Tensor) -> dict[str, Tensor]:
    low, high = interval or (torch.full_like(like, torch.nan),) * 2
    return {"ci_low": low, "ci_high": high}


def _table(
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
