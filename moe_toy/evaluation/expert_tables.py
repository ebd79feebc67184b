"""The makers of tables about single experts and single positions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import pandas as pd
import torch
from jaxtyping import Int64
from torch import Tensor

from moe_toy.metrics.activation import SEGMENT_LENGTH
from moe_toy.metrics.coactivation import CoActivation
from moe_toy.metrics.load_balance import expert_counts
from moe_toy.metrics.positions import PositionSRP
from moe_toy.metrics.table_maker import TableMaker, make_room
from moe_toy.routing import RoutingTrace

MOST_PAIRS = 20
"""Pairs of a layer that are kept."""
BELONGS = 2.0
"""An expert belongs to a domain that chooses it this many times as often as other domains do on average."""


class CoActivationTable(TableMaker):
    """`coactivation`: the pairs of each layer that most often serve the same token; see `results.py`."""

    def __init__(self, first: RoutingTrace, *, min_token_count: int) -> None:
        self.sizes = {"num_layers": len(first.layer_ids), "num_experts": first.num_experts}
        self.min_token_count = min_token_count

    @cached_property
    def metric(self) -> CoActivation:
        return CoActivation(**self.sizes)

    def memory(self, num_domains: int) -> int:
        layers, experts = self.sizes.values()
        return 8 * layers * experts**2

    def update(self, trace: RoutingTrace) -> None:
        self.metric.update(trace)

    def tables(self) -> dict[str, pd.DataFrame]:
        scores = self.metric.compute()
        tokens = scores.pairs.diagonal(dim1=-2, dim2=-1)
        share = scores.conditional.masked_fill(tokens[..., None] < max(self.min_token_count, 1), 0.0)
        share.diagonal(dim1=-2, dim2=-1).zero_()
        rows = []
        for layer in range(self.sizes["num_layers"]):
            strongest = share[layer].flatten().sort(descending=True, stable=True).indices[:MOST_PAIRS]
            for cell in strongest.tolist():
                expert, partner = divmod(cell, self.sizes["num_experts"])
                if (value := share[layer, expert, partner].item()) > 0:
                    rows.append((layer, expert, partner, scores.pairs[layer, expert, partner].item(), value))
        return {"coactivation": pd.DataFrame(rows, columns=["layer", "expert", "partner", "tokens", "share"])}


class PositionTable(TableMaker):
    """`positions`: SRP of the model by where in the sequence the segment lies. Absent for shorter sequences
    and where sequences differ in length."""

    def __init__(self, first: RoutingTrace) -> None:
        self.sizes = {"num_layers": len(first.layer_ids), "num_experts": first.num_experts}
        self.seq_len = first.sequence_length
        self.of_one_length = True

    @cached_property
    def metric(self) -> PositionSRP | None:
        if self.seq_len < SEGMENT_LENGTH:
            return None
        return PositionSRP(**self.sizes, seq_len=self.seq_len, segment_length=SEGMENT_LENGTH)

    def memory(self, num_domains: int) -> int:
        return 8 * num_domains * self.sizes["num_layers"] * self.seq_len * (SEGMENT_LENGTH + 1)

    def update(self, trace: RoutingTrace) -> None:
        self.of_one_length &= trace.sequence_length == self.seq_len
        if self.metric is not None and self.of_one_length:
            make_room([self.metric], trace)
            self.metric.update(trace)

    def tables(self) -> dict[str, pd.DataFrame]:
        if self.metric is None or not self.of_one_length:
            return {}
        scores = self.metric.compute()
        columns = {"position": scores.center.numpy(), "segment_length": SEGMENT_LENGTH}
        return {"positions": pd.DataFrame(columns | {"srp": scores.model.srp.numpy()})}


class ExpertTable(TableMaker):
    """`experts`: the domain that each expert prefers; see `results.py`. Domains count equally, however much text of
    each was read."""

    def __init__(self, first: RoutingTrace) -> None:
        self.num_layers, self.num_experts = len(first.layer_ids), first.num_experts
        self.domains: Sequence[str] = ()
        self._counts: Int64[Tensor, "domain layer expert"] | None = None
        self._tokens: Int64[Tensor, " domain"] = torch.zeros(0, dtype=torch.int64)

    def memory(self, num_domains: int) -> int:
        return 8 * num_domains * self.num_layers * self.num_experts

    def update(self, trace: RoutingTrace) -> None:
        new = len(trace.domains) - len(self.domains)
        self.domains = trace.domains
        room = torch.zeros(new, self.num_layers, self.num_experts, dtype=torch.int64)
        self._counts = room if self._counts is None else torch.cat([self._counts, room])
        self._tokens = torch.cat([self._tokens, torch.zeros(new, dtype=torch.int64)])
        tokens = torch.full_like(trace.domain_ids, trace.sequence_length, dtype=torch.int64)
        self._tokens.index_add_(0, trace.domain_ids, tokens)
        self._counts.index_add_(0, trace.domain_ids, expert_counts(trace.expert_ids, self.num_experts))

    def tables(self) -> dict[str, pd.DataFrame]:
        tokens = self._counts.sum(0)  # (layer, expert)
        rates = self._counts / self._tokens[:, None, None].double()
        shares = rates / rates.sum(0)
        best = rates.argmax(0, keepdim=True)  # the first of equals
        rate = rates.gather(0, best)
        elsewhere = (rates.sum(0) - rate) / max(len(rates) - 1, 1)
        index = pd.MultiIndex.from_product([range(self.num_layers), range(self.num_experts)], names=["layer", "expert"])
        table = pd.DataFrame(
            {
                "domain": [self.domains[d] for d in best.flatten().tolist()],
                "tokens": tokens.flatten().numpy(),
                "share": shares.gather(0, best).flatten().numpy(),
                "domain_share": rate.flatten().numpy(),
                "lift": len(rates) * shares.gather(0, best).flatten().numpy(),
                "belongs": ((rate > 0) & (rate >= BELONGS * elsewhere) & (len(rates) > 1)).flatten().numpy(),
            },
            index=index,
        ).reset_index()
        dead = table.tokens == 0
        table.loc[dead, "domain"] = None
        table.loc[dead, ["share", "domain_share", "lift"]] = float("nan")
        return {"experts": table}
