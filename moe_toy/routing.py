"""The shared vocabulary: what one layer decides (`Routing`), what a whole model decided (`RoutingTrace`).

Axis names used in every signature: batch seq token hidden head expert k layer vocab domain segment capacity bins
(`token` is batch and seq flattened).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from moe_toy.errors import UserError


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
    """The chosen experts, all different, best first: in falling order of their logits."""
    weights: Float[Tensor, "batch seq k"]
    """How much each chosen expert contributes."""


@dataclass(frozen=True, kw_only=True)
class RoutingTrace:
    """All that a metric needs to know of a forward pass: which experts every token chose. No gradients."""

    expert_ids: Integer[Tensor, "layer batch seq k"]
    """MoE layers only; best expert first if `ordered`, and -1 for none if `padded`. Shared experts are not part."""
    token_ids: Integer[Tensor, "batch seq"] | None
    """The input; the targets are its shift by one. None where nobody wrote it down: what needs it is left out."""
    num_experts: int
    layer_ids: tuple[int, ...]
    """Which transformer layer each row of `expert_ids` is."""
    weights: Float[Tensor, "layer batch seq k"] | None = None
    """How much each expert contributed, where the routing was recorded by others; no metric reads them."""
    predicted_ids: Integer[Tensor, "batch seq"] | None = None
    """Most likely next token at each position; only vocabulary specialization reads it."""
    domain_ids: Integer[Tensor, " batch"] | None = None
    """Filled by the caller: a model knows no domains."""
    prompt_lengths: Integer[Tensor, " batch"] | None = None
    """How many of the first tokens of each sequence were read at once, before the answer; None is none. Only caches
    read it."""
    ordered: bool = True
    """Whether the experts of a token stand in order of rank; what needs the best one is left out where they do not."""
    padded: bool = False
    """Whether tokens have different numbers of experts: -1 stands for none, in any place."""
    expert_bytes: tuple[int, ...] | None = None
    """Size of one expert in each row of `expert_ids`, where the layers differ or it is known."""
    vocab_size: int | None = None
    domains: tuple[str | int, ...] = ()
    """Names, indexed by `domain_ids`; empty where unknown. `DomainNumbers` names a domain without one by its number."""
    source: dict[str, Any] = field(default_factory=dict)
    """Free provenance: model, revision, dtype, data."""

    @property
    def num_sequences(self) -> int:
        return self.expert_ids.shape[1]

    @property
    def sequence_length(self) -> int:
        return self.expert_ids.shape[2]

    @property
    def names_leaders(self) -> bool:
        """Whether it says which expert is the best for which token id."""
        return self.token_ids is not None and self.ordered and not self.padded

    def with_domains(self, domain_ids: Integer[Tensor, " batch"], domains: tuple[str | int, ...] = ()) -> RoutingTrace:
        return replace(self, domain_ids=domain_ids, domains=domains)

    def select(self, sequences: Integer[Tensor, " kept"] | slice) -> RoutingTrace:
        """The same trace of some of its sequences."""
        on_batch = {
            name: getattr(self, name)[sequences]
            for name in ("token_ids", "predicted_ids", "domain_ids", "prompt_lengths")
            if getattr(self, name) is not None
        }
        weights = None if self.weights is None else self.weights[:, sequences]
        return replace(self, expert_ids=self.expert_ids[:, sequences], weights=weights, **on_batch)

    def check(self, where: str = "the trace") -> None:
        """Raise `UserError`, naming field and position, unless shapes agree, ids are in range and experts differ."""
        _check_trace(self, where)


class DomainNumbers:
    """One numbering of the domains of many traces, each of which numbers its own. `names` are known beforehand."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names: list[str | int] = list(names)
        """By number; a domain without a name goes by the number that its trace gave it."""

    def common(self, trace: RoutingTrace) -> RoutingTrace:
        """The trace with the common numbers, and the names of all domains so far. Domains are numbered as they come,
        those of one trace in its own order."""
        if trace.domain_ids is None:
            return trace
        ids = trace.domain_ids.long().cpu()
        numbers = torch.zeros(int(ids.max()) + 1 if len(ids) else 1, dtype=torch.int64)
        for domain in ids.unique().tolist():
            name = trace.domains[domain] if trace.domains else domain
            if name not in self.names:
                self.names.append(name)
            numbers[domain] = self.names.index(name)
        return replace(trace, domain_ids=numbers[ids], domains=tuple(self.names))


def joined(traces: list[RoutingTrace]) -> RoutingTrace:
    """Traces of one model as one, sequence after sequence. They share one numbering of domains; the last names all."""
    if len(lengths := {trace.sequence_length for trace in traces}) > 1:
        raise UserError(
            f"sequences of {min(lengths)} to {max(lengths)} tokens do not fit into one trace; set save_trace=false, or "
            "give target.sequence_length"
        )
    parts = {name: [getattr(t, name) for t in traces] for name in AXES}
    if any(trace.padded for trace in traces):  # the smallest integers have no place for -1
        parts["expert_ids"] = [ids.to(torch.int32) for ids in parts["expert_ids"]]
    if any(prompts is not None for prompts in parts["prompt_lengths"]):
        none = [torch.zeros(t.num_sequences, dtype=torch.int64) for t in traces]
        parts["prompt_lengths"] = [
            zeros if t.prompt_lengths is None else t.prompt_lengths for zeros, t in zip(none, traces, strict=True)
        ]
    tensors = {name: torch.cat(of, AXES[name].index("batch")) for name, of in parts.items() if None not in of}
    by_domain = {
        name: {domain: value for trace in traces for domain, value in trace.source[name].items()}
        for name in ("loss", "bits_per_byte")
        if all(isinstance(trace.source.get(name), dict) for trace in traces)
    }
    return replace(
        traces[0],
        source=traces[0].source | by_domain,
        domains=traces[-1].domains,
        ordered=all(trace.ordered for trace in traces),
        padded=any(trace.padded for trace in traces),
        **(dict.fromkeys(AXES) | tensors),
    )


AXES = {
    "expert_ids": ("layer", "batch", "seq", "k"),
    "token_ids": ("batch", "seq"),
    "predicted_ids": ("batch", "seq"),
    "domain_ids": ("batch",),
    "prompt_lengths": ("batch",),
    "weights": ("layer", "batch", "seq", "k"),
}
"""The axes of each tensor of a trace."""
_MOST = {"num_experts": 2**16, "vocab_size": 2**31, "domains": 2**15}  # what the integers of a file can number


def _check_trace(trace: RoutingTrace, where: str) -> None:
    """Raise `UserError`, naming field and position, unless shapes agree, all ids are in range and no token names an
    expert twice."""
    tensors = {name: tensor for name in AXES if (tensor := getattr(trace, name)) is not None}
    sizes = checked_sizes(tensors, where)
    for name, way_out in (("layer_ids", "name the transformer layer"), ("expert_bytes", "give the size of an expert")):
        rows = getattr(trace, name)
        if rows is not None and len(rows) != sizes["layer"]:
            raise UserError(
                f"{where}: '{name}' names {len(rows)} layers, but 'expert_ids' has {sizes['layer']}; {way_out} of each"
            )
    for name, number in zip(_MOST, (trace.num_experts, trace.vocab_size or 0, len(trace.domains)), strict=True):
        if number > _MOST[name]:
            raise UserError(
                f"{where}: '{name}' counts {number}, more than the {_MOST[name]} that a trace file can number; "
                "write the trace again"
            )
    if not 1 <= sizes["k"] <= trace.num_experts:
        raise UserError(
            f"{where}: 'expert_ids' has {sizes['k']} experts per token, but num_experts is {trace.num_experts}; "
            "a token has between 1 and num_experts"
        )
    _check_range(trace, "expert_ids", trace.num_experts, "num_experts", where, lowest=-1 if trace.padded else 0)
    _check_range(trace, "prompt_lengths", sizes["seq"] + 1, "the length of a sequence, plus one", where)
    for name in ("token_ids", "predicted_ids"):
        _check_range(trace, name, trace.vocab_size or _MOST["vocab_size"], "vocab_size", where)
    _check_range(trace, "domain_ids", len(trace.domains) or _MOST["domains"], "the number of 'domains'", where)
    if trace.domain_ids is None and len(trace.domains) > 1:
        raise UserError(f"{where}: 'domains' names {len(trace.domains)}, but 'domain_ids' is absent; give them")
    _check_no_expert_twice(trace, where)


def checked_sizes(tensors: dict[str, Tensor], where: str) -> dict[str, int]:
    """The size of every axis, on which all tensors must agree."""
    sizes: dict[str, int] = {}
    for name, tensor in tensors.items():
        axes = AXES[name]
        if tensor.ndim != len(axes):
            raise UserError(
                f"{where}: '{name}' has {tensor.ndim} axes {tuple(tensor.shape)}, not ({', '.join(axes)}); "
                "write the trace again"
            )
        for axis, size in zip(axes, tensor.shape, strict=True):
            if sizes.setdefault(axis, size) != size:
                raise UserError(
                    f"{where}: '{name}' has {size} on axis {axis}, but the tensors before it have {sizes[axis]}; "
                    "write the trace again"
                )
        if tensor.is_floating_point() != (name == "weights"):
            raise UserError(f"{where}: '{name}' has type {tensor.dtype}; ids are integers, weights are floats")
    return sizes


def _check_range(  # noqa: PLR0917
    trace: RoutingTrace, name: str, limit: int, meaning: str, where: str, lowest: int = 0
) -> None:
    tensor = getattr(trace, name)
    if tensor is None or tensor.numel() == 0:
        return
    ids = tensor.cpu().numpy()  # torch lacks min and max for uint16
    for extreme in (ids.argmin(), ids.argmax()):
        value = int(ids.flat[extreme])
        if not lowest <= value < limit:
            rule = "must not be negative" if value < 0 else f"is not below {meaning} ({limit})"
            place = _place(name, np.unravel_index(extreme, ids.shape))
            raise UserError(f"{where}: '{name}' holds {value} at {place}, which {rule}; write the trace again")


def _check_no_expert_twice(trace: RoutingTrace, where: str) -> None:
    for layer, ids in enumerate(trace.expert_ids.cpu()):
        by_rank = np.ascontiguousarray(np.moveaxis(ids.numpy(), -1, 0))
        for rank in range(1, len(by_rank)):
            same = ((by_rank[:rank] == by_rank[rank]) & (by_rank[rank] != -1)).any(0)
            if same.any():
                at = np.unravel_index(same.argmax(), same.shape)
                place = _place("expert_ids", (layer, *at))
                expert = int(by_rank[rank][at])
                raise UserError(f"{where}: 'expert_ids' names expert {expert} twice at {place}; write the trace again")


def _place(name: str, index: tuple[Any, ...]) -> str:
    return ", ".join(f"{axis} {int(i)}" for axis, i in zip(AXES[name], index, strict=False))
