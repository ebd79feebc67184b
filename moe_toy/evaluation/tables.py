"""The makers of the tables that an evaluation adds to those of `moe_toy.metrics.analyze`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import pandas as pd
import torch
from torch import Tensor

from moe_toy.metrics import SRP, CacheHitRate, LoadBalance, LoadScores, null_scores
from moe_toy.metrics.activation import SEGMENT_LENGTH
from moe_toy.metrics.cache import Cold
from moe_toy.metrics.table_maker import TableMaker, make_room
from moe_toy.routing import RoutingTrace, joined
from moe_toy.traces.lengths import of_one_length
from moe_toy.traces.losses import Losses

NULL_CACHE_RATIOS = (1.0, 1.5, 2.0, 3.0)
LOAD_BATCH = 64


class BalanceTable(TableMaker):
    """`balance`: evenness of load over everything, within a sequence and within a segment, per layer and domain."""

    def __init__(self, first: RoutingTrace) -> None:
        self.sizes = {"num_layers": len(first.layer_ids), "num_experts": first.num_experts}
        self.tokens_at_once = min(LOAD_BATCH, first.num_sequences) * first.sequence_length
        self.domains: Sequence[str] = ()

    @cached_property
    def metric(self) -> LoadBalance:
        return LoadBalance(**self.sizes)

    def memory(self, num_domains: int) -> int:
        layers, experts = self.sizes.values()
        return 8 * experts * (num_domains * layers + 3 * self.tokens_at_once)  # the counts of all segments

    def update(self, trace: RoutingTrace) -> None:
        self.domains = trace.domains
        make_room([self.metric], trace)
        for part in torch.arange(trace.num_sequences).split(LOAD_BATCH):
            self.metric.update(trace.select(part))

    def tables(self) -> dict[str, pd.DataFrame]:
        scores = self.metric.compute()
        parts = _balance_rows(scores.overall, None)
        for d, domain in enumerate(self.domains):
            parts += _balance_rows(LoadScores(**{k: v[d] for k, v in vars(scores.by_domain).items()}), domain)
        return {"balance": pd.concat(parts, ignore_index=True)}


def _balance_rows(scores: LoadScores, domain: str | None) -> list[pd.DataFrame]:
    columns = {
        "corpus": {
            "cv": scores.cv,
            "max_violation": scores.max_violation,
            "entropy": scores.entropy,
            "dead_experts": scores.dead_experts,
        },
        "sequence": {"cv": scores.sequence_cv, "max_violation": scores.sequence_max_violation},
        "segment": {"cv": scores.segment_cv},
    }
    order = ["layer", "domain", "scope", "cv", "max_violation", "entropy", "dead_experts"]
    parts = []
    for scope, values in columns.items():
        part = pd.DataFrame({name: value.numpy() for name, value in values.items()})
        parts.append(part.assign(layer=range(len(part)), domain=domain, scope=scope).reindex(columns=order))
    return parts


class SomeOfEachDomain(TableMaker):
    """Keeps the first `wanted` sequences of every domain."""

    def __init__(self, first: RoutingTrace, wanted: int) -> None:
        self.wanted = wanted
        self._bytes = wanted * (4 * first.expert_ids[:, :1].numel() + 8 * first.sequence_length)
        self._kept: dict[int, int] = {}
        self._parts: list[RoutingTrace] = []

    def memory(self, num_domains: int) -> int:
        return num_domains * self._bytes

    def update(self, trace: RoutingTrace) -> None:
        rows = []
        for row, domain in enumerate(trace.domain_ids.tolist()):
            if self._kept.setdefault(domain, 0) < self.wanted:
                self._kept[domain] += 1
                rows.append(row)
        if rows:
            self._parts.append(trace.select(torch.tensor(rows)))

    @property
    def trace(self) -> RoutingTrace:
        """What is kept, as one trace."""
        return joined(of_one_length(self._parts))


class NullTable(SomeOfEachDomain):
    """`nulls`: SRP and the hit rate of the segment cache of the whole model, beside the same of each null model."""

    def __init__(
        self, first: RoutingTrace, segment_lengths: tuple[int, ...], *, samples: int, repeats: int, cold: Cold
    ) -> None:
        super().__init__(first, samples)
        self.wanted_lengths = tuple(dict.fromkeys(segment_lengths))
        self.repeats = repeats
        self.cold = cold

    def tables(self) -> dict[str, pd.DataFrame]:
        trace = self.trace
        lengths = [m for m in self.wanted_lengths if m <= trace.sequence_length]
        sizes = {
            "num_layers": len(trace.layer_ids),
            "num_experts": trace.num_experts,
            "num_domains": len(trace.domains),
        }

        def score(shuffled: RoutingTrace) -> Tensor:
            segments = [SRP(**sizes, segment_length=m) for m in lengths]
            top_k = trace.expert_ids.shape[3]
            options = {"top_k": top_k, "segment_length": SEGMENT_LENGTH, "cold": self.cold}
            cache = CacheHitRate(**sizes, **options, scope="model")
            for metric in (*segments, cache):
                metric.update(shuffled)
            hit_rates = cache.compute()
            return torch.stack(
                [metric.compute().model.srp for metric in segments]
                + [hit_rates.at_ratio(ratio)[0] for ratio in NULL_CACHE_RATIOS]
            )

        keys = [("srp", m, None) for m in lengths] + [("sch", SEGMENT_LENGTH, ratio) for ratio in NULL_CACHE_RATIOS]
        table = pd.DataFrame(keys, columns=["metric", "segment_length", "cache_ratio"])
        scores = null_scores(trace, score, repeats=self.repeats)
        return {"nulls": table.assign(**{name: value.numpy() for name, value in vars(scores).items()})}


class LossTable(TableMaker):
    """`loss` of each domain; absent where no trace knows its loss."""

    def __init__(self) -> None:
        self.losses = Losses()

    def memory(self, num_domains: int) -> int:
        return 0

    def update(self, trace: RoutingTrace) -> None:
        self.losses.add(trace)

    def tables(self) -> dict[str, pd.DataFrame]:
        table = pd.DataFrame(self.losses.by_domain(), dtype=float).rename_axis("domain").reset_index()
        return {} if table.loss.isna().all() else {"loss": table}


class TextTable(SomeOfEachDomain):
    """`text`: the first `length` tokens of a sequence of each domain with all experts of every token, best first."""

    def __init__(self, first: RoutingTrace, token_text: Callable[[int], str], length: int) -> None:
        super().__init__(first, wanted=1)
        self.token_text = token_text
        self.length = length

    def update(self, trace: RoutingTrace) -> None:
        if trace.names_leaders:
            super().update(trace)

    def tables(self) -> dict[str, pd.DataFrame]:
        if not self._parts:
            return {}
        passages = self.trace
        layers, _, _, top_k = passages.expert_ids.shape
        parts = []
        for sequence, (token_ids, domain) in enumerate(zip(passages.token_ids, passages.domain_ids, strict=True)):
            tokens = [self.token_text(int(id)) for id in token_ids[: self.length]]
            experts = passages.expert_ids[:, sequence, : self.length].long()
            index = pd.MultiIndex.from_product(
                [range(layers), range(len(tokens)), range(top_k)], names=["layer", "position", "rank"]
            )
            part = pd.DataFrame({"expert": experts.flatten().numpy()}, index=index).reset_index()
            part["token"] = part.position.map(tokens.__getitem__)
            parts.append(part.assign(domain=passages.domains[int(domain)], sequence=sequence))
        columns = ["domain", "sequence", "position", "token", "layer", "rank", "expert"]
        return {"text": pd.concat(parts, ignore_index=True)[columns]}
