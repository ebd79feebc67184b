"""Trace files as one recording that can be read again and again, with one numbering of its domains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from moe_toy.errors import UserError
from moe_toy.routing import DomainNumbers, RoutingTrace
from moe_toy.traces.trace_file import load_trace


class Recording:
    """A trace that names no domains is one, named after its file; unnamed domains go by number. Counts grow with each
    domain that is not among the `domains` known beforehand."""

    def __init__(self, files: Sequence[Path], domains: Sequence[str] = ()) -> None:
        self.files = list(files)
        self._numbers = DomainNumbers(domains)

    def __iter__(self) -> Iterator[RoutingTrace]:
        for file in self.files:
            yield self.read(file)

    def read(self, file: Path) -> RoutingTrace:
        trace = load_trace(file)
        batch, seq = trace.num_sequences, trace.sequence_length
        if trace.expert_ids.numel() == 0:
            raise UserError(
                f"{file} holds {batch} sequences of {seq} tokens in {len(trace.layer_ids)} layers; remove it"
            )
        if trace.domain_ids is None:
            one_name = trace.domains or (file.stem,)
            return self._numbers.common(trace.with_domains(torch.zeros(batch, dtype=torch.int64), one_name))
        names = trace.domains or tuple(str(d) for d in range(int(trace.domain_ids.long().max()) + 1))
        return self._numbers.common(trace.with_domains(trace.domain_ids, names))

    @property
    def domains(self) -> list[str]:
        """Those known beforehand and those of the files read so far, by number."""
        return self._numbers.names
