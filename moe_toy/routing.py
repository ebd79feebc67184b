"""The shared vocabulary: what one layer decides (`Routing`), what a whole model decided (`RoutingTrace`).

Axis names used in every signature: batch seq token hidden head expert k layer vocab domain segment capacity bins
(`token` is batch and seq flattened).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from jaxtyping import Float, Int, Integer
from torch import Tensor


class TokenBatch(NamedTuple):
    """Sequences of token ids, each from one domain."""

    token_ids: Int[Tensor, "batch seq"]
    domain_ids: Int[Tensor, " batch"]


@dataclass(frozen=True)
class Routing:
    """The decision of one MoE layer, with gradients: for losses, not for metrics."""

    logits: Float[Tensor, "batch seq expert"]
    scores: Float[Tensor, "batch seq expert"]
    """Non-negative preference for every expert; sums to 1 over experts."""
    expert_ids: Int[Tensor, "batch seq k"]
    """The chosen experts, best first, all different."""
    weights: Float[Tensor, "batch seq k"]
    """How much each chosen expert contributes."""


@dataclass(frozen=True, kw_only=True)
class RoutingTrace:
    """All that a metric needs to know of a forward pass: which experts every token chose. No gradients."""

    expert_ids: Integer[Tensor, "layer batch seq k"]
    """MoE layers only; best expert first. Shared experts are not part of it."""
    token_ids: Integer[Tensor, "batch seq"]
    """The input; the targets are its shift by one."""
    num_experts: int
    layer_ids: tuple[int, ...]
    """Which transformer layer each row of `expert_ids` is."""
    weights: Float[Tensor, "layer batch seq k"] | None = None
    predicted_ids: Integer[Tensor, "batch seq"] | None = None
    """Most likely next token at each position; only vocabulary specialization reads it."""
    domain_ids: Integer[Tensor, " batch"] | None = None
    """Filled by the caller: a model knows no domains."""
    vocab_size: int | None = None
    domains: tuple[str, ...] = ()
    """Names, indexed by `domain_ids`; empty where unknown."""
    source: dict[str, Any] = field(default_factory=dict)
    """Free provenance: model, revision, dtype, data."""

    def with_domains(self, domain_ids: Integer[Tensor, " batch"], domains: tuple[str, ...] = ()) -> RoutingTrace:
        return replace(self, domain_ids=domain_ids, domains=domains)

    def select(self, sequences: Integer[Tensor, " kept"] | slice) -> RoutingTrace:
        """The same trace of some of its sequences."""
        on_batch = {
            name: getattr(self, name)[sequences]
            for name in ("token_ids", "predicted_ids", "domain_ids")
            if getattr(self, name) is not None
        }
        weights = None if self.weights is None else self.weights[:, sequences]
        return replace(self, expert_ids=self.expert_ids[:, sequences], weights=weights, **on_batch)

    def check(self, where: str = "the trace") -> None:
        """Raise `UserError`, naming field and position, unless shapes agree, ids are in range and experts differ."""
        from moe_toy.trace_file import check_trace  # which reads RoutingTrace

        check_trace(self, where)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file; raises `UserError` if the trace is inconsistent."""
        from moe_toy.trace_file import save_trace  # which reads RoutingTrace

        save_trace(self, path)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> RoutingTrace:
        """Read a file written by `save`; raises `UserError`, naming the field, if it is damaged or inconsistent."""
        from moe_toy.trace_file import load_trace  # which reads RoutingTrace

        return load_trace(path)
