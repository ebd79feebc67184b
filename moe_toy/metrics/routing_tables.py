"""The tables of every analysis: consistency and load, caches, vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any, get_args

from moe_toy.metrics.activation import SEGMENT_LENGTH
from moe_toy.metrics.bootstrap import PoissonResampler
from moe_toy.metrics.cache import CacheHitRate, Cold, Policy
from moe_toy.metrics.lookups import Order, Scope
from moe_toy.metrics.specialization import domain_scores
from moe_toy.metrics.srp import SRP
from moe_toy.metrics.srp_intervals import SRPBootstrap
from moe_toy.metrics.table_maker import TableMaker, bounds, long_table, make_room
from moe_toy.metrics.vocabulary import VocabularySpecialization, strongest_tokens
from moe_toy.routing import RoutingTrace

if TYPE_CHECKING:
    import pandas as pd


class SRPTables(TableMaker):
    """`srp`, `specialization` by domain, and `load`; all from counts of segments."""

    def __init__(
        self,
        first: RoutingTrace,
        segment_lengths: Sequence[int],
        *,
        resampler: PoissonResampler | None,
        domain_floor: float,
    ) -> None:
        self.sizes = {"num_layers": len(first.expert_ids), "num_experts": first.num_experts}
        self.segment_lengths = list(dict.fromkeys(segment_lengths))
        self.resampler = resampler
        self.domain_floor = domain_floor
        self.domains: Sequence[str | int] = ()

    @cached_property
    def srp(self) -> dict[int, SRP]:
        lengths = {*self.segment_lengths, SEGMENT_LENGTH, 1}
        return {length: SRP(**self.sizes, segment_length=length) for length in lengths}

    @cached_property
    def bootstrap(self) -> dict[int, SRPBootstrap]:
        lengths = self.segment_lengths if self.resampler else []
        return {m: SRPBootstrap(**self.sizes, segment_length=m, resampler=self.resampler) for m in lengths}

    def memory(self, num_domains: int) -> int:
        layers, experts = self.sizes.values()
        counted = sum(m + 1 for m in {*self.segment_lengths, SEGMENT_LENGTH, 1}) * experts
        resamples = self.resampler.num_resamples if self.resampler else 0
        return 8 * num_domains * layers * (counted + resamples * sum(m + 1 for m in self.segment_lengths))

    def update(self, trace: RoutingTrace) -> None:
        self.domains = trace.domains
        metrics = [*self.srp.values(), *self.bootstrap.values()]
        make_room(metrics, trace)
        for metric in metrics:
            metric.update(trace)

    def tables(self) -> dict[str, pd.DataFrame]:
        return {"srp": self._srp(), "specialization": self._specialization(), "load": self._load()}

    def _srp(self) -> pd.DataFrame:
        rows = []
        for m in self.segment_lengths:
            metric, scores = self.srp[m], self.srp[m].compute()
            if scores.model.srp.isnan():
                continue
            intervals = self.bootstrap[m].compute() if self.bootstrap else None
            for level, suffix in product(["model", "layer", "expert"], ["", "_by_domain"] if self.domains else [""]):
                values = getattr(scores, level + suffix)
                axes = {
                    "level": [level],
                    "domain": self.domains if suffix else [None],
                    "layer": [None] if level == "model" else range(metric.num_layers),
                    "expert": range(metric.num_experts) if level == "expert" else [None],
                    "segment_length": [m],
                }
                interval = intervals and getattr(intervals, level + suffix)
                rows.append((axes, vars(values) | bounds(interval, values.srp)))
        order = ["level", "layer", "expert", "domain", "segment_length"]
        return long_table(rows, order, ["srp", "threshold", "router_size", "activation_rate", "ci_low", "ci_high"])

    def _specialization(self) -> pd.DataFrame:
        rates = self.srp[SEGMENT_LENGTH].compute().expert_by_domain.activation_rate
        value = domain_scores(rates, self.domain_floor).value
        return long_table([(experts(self.sizes) | {"kind": ["domain"]}, {"value": value})], *SPECIALIZATION_COLUMNS)

    def _load(self) -> pd.DataFrame:
        scores = self.srp[1].compute()  # a segment of one token: the share of tokens
        rows = [({"domain": [None]} | experts(self.sizes), {"activation_rate": scores.expert.activation_rate})]
        if self.domains:
            rates = scores.expert_by_domain.activation_rate
            rows.append(({"domain": self.domains} | experts(self.sizes), {"activation_rate": rates}))
        return long_table(rows, ["layer", "expert", "domain"], ["activation_rate"])


class CacheTable(TableMaker):
    """`cache`: hit rates of every policy, one cache per layer and one for all layers, the latter in both orders. Layer
    order is for what an engine gets, so there every first request is a miss; `cold` is for the others."""

    def __init__(
        self,
        first: RoutingTrace,
        segment_lengths: Sequence[int],
        *,
        stride: int,
        cold: Cold,
        resampler: PoissonResampler | None,
    ) -> None:
        self.sizes = {"num_layers": len(first.expert_ids), "num_experts": first.num_experts}
        self.options = {
            "top_k": first.expert_ids.shape[3],
            "sample_stride": stride,
            "resampler": resampler,
        }
        self.cold = cold
        lengths = list(dict.fromkeys(segment_lengths))
        caches: list[tuple[Scope, Order | None]] = [("layer", None), ("model", "token"), ("model", "layer")]
        self.kinds = [
            (policy, *cache, m)
            for policy, cache in product(get_args(Policy), caches)
            for m in (lengths if policy == "sch" else [None])
        ]
        self.domains: Sequence[str | int] = ()

    @cached_property
    def caches(self) -> dict[tuple[Policy, Scope, Order | None, int | None], CacheHitRate]:
        return {
            (policy, scope, order, m): CacheHitRate(
                **self.sizes,
                **self.options,
                policy=policy,
                scope=scope,
                order=order or "token",
                cold="miss" if order == "layer" else self.cold,
                segment_length=m or 1,
            )
            for policy, scope, order, m in self.kinds
        }

    def memory(self, num_domains: int) -> int:
        layers, experts = self.sizes.values()
        resamples = self.options["resampler"].num_resamples if self.options["resampler"] else 0
        return 8 * num_domains * layers * experts * len(self.kinds) * (1 + resamples)

    def update(self, trace: RoutingTrace) -> None:
        self.domains = trace.domains
        make_room(self.caches.values(), trace)
        for metric in self.caches.values():
            metric.update(trace)

    def tables(self) -> dict[str, pd.DataFrame]:
        rows = []
        for (policy, scope, order, m), metric in self.caches.items():
            scores = metric.compute()
            pooled = scores.hit_rate, scores.interval, [None]
            by_domain = scores.by_domain, scores.interval_by_domain, self.domains
            for hit_rate, interval, domains in [pooled, by_domain] if self.domains else [pooled]:
                axes = {
                    "policy": [policy],
                    "scope": [scope],
                    "order": [order],
                    "domain": domains,
                    "layer": range(metric.num_layers) if scope == "layer" else [None],
                    "segment_length": [m],
                    "capacity": scores.capacity.tolist(),
                }
                ratio = scores.cache_ratio.expand(hit_rate.shape)
                rows.append((axes, {"cache_ratio": ratio, "hit_rate": hit_rate} | bounds(interval, hit_rate)))
        axes = ["policy", "scope", "order", "layer", "domain", "segment_length", "capacity"]
        return {"cache": long_table(rows, axes, ["cache_ratio", "hit_rate", "ci_low", "ci_high"])}


class VocabularyTables(TableMaker):
    """`specialization` by kind of token, and `tokens`, those that each expert owns, with their text."""

    def __init__(self, first: RoutingTrace, token_text: Callable[[int], str], *, min_token_count: int) -> None:
        self.sizes = {"num_layers": len(first.expert_ids), "num_experts": first.num_experts}
        self.vocab_size = first.vocab_size
        self.token_text = token_text
        self.min_token_count = min_token_count
        self.kinds = ["input", "target"] if first.predicted_ids is None else ["input", "predicted", "target"]

    @cached_property
    def vocabulary(self) -> VocabularySpecialization:
        return VocabularySpecialization(
            **self.sizes, vocab_size=self.vocab_size, min_token_count=self.min_token_count, kinds=self.kinds
        )

    def memory(self, num_domains: int) -> int:
        layers, experts = self.sizes.values()
        return 4 * len(self.kinds) * layers * experts * self.vocab_size

    def update(self, trace: RoutingTrace) -> None:
        self.vocabulary.update(trace)

    def tables(self) -> dict[str, pd.DataFrame]:
        scores = self.vocabulary.compute()
        rows = [(experts(self.sizes) | {"kind": [kind]}, {"value": score.value}) for kind, score in scores.items()]
        return {
            "specialization": long_table(rows, *SPECIALIZATION_COLUMNS),
            "tokens": strongest_tokens(scores, self.token_text, range(self.sizes["num_layers"])),
        }


SPECIALIZATION_COLUMNS = ["layer", "expert", "kind"], ["value"]


def experts(sizes: dict[str, int]) -> dict[str, Sequence[Any]]:
    """The axes of a tensor of all experts."""
    return {"layer": range(sizes["num_layers"]), "expert": range(sizes["num_experts"])}
