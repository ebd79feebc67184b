"""Traces whose sequences differ in length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from moe_toy.routing import RoutingTrace


def of_one_length(traces: Sequence[RoutingTrace]) -> list[RoutingTrace]:
    """The traces cut to the length that keeps most tokens; shorter sequences are left out. As they are if they do not
    differ."""
    lengths = {trace.sequence_length for trace in traces}
    if len(lengths) == 1:
        return list(traces)
    kept = {n: n * sum(trace.num_sequences for trace in traces if trace.sequence_length >= n) for n in lengths}
    length = max(kept, key=lambda n: (kept[n], n))
    return [_cut(trace, length) for trace in traces if trace.sequence_length >= length]


def _cut(trace: RoutingTrace, length: int) -> RoutingTrace:
    """The first tokens of every sequence."""
    on_tokens = {
        name: getattr(trace, name)[:, :length]
        for name in ("token_ids", "predicted_ids")
        if getattr(trace, name) is not None
    }
    prompts = trace.prompt_lengths
    return replace(
        trace,
        expert_ids=trace.expert_ids[:, :, :length],
        weights=None if trace.weights is None else trace.weights[:, :, :length],
        prompt_lengths=None if prompts is None else prompts.clamp(max=length),
        **on_tokens,
    )
