"""Trace files as one recording that can be read again and again, with one numbering of its domains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from moe_toy.errors import UserError
from moe_toy.routing import RoutingTrace
from moe_toy.traces.trace_file import load_trace


class Recording:
    """A trace that names no domains is one, named after its file; unnamed domains go by number."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)
        self.domains: list[str] = []
        self.sequence_length = 0

    def __iter__(self) -> Iterator[RoutingTrace]:
        for file in self.files:
            yield self.read(file)

    def read(self, file: Path) -> RoutingTrace:
        trace = load_trace(file)
        batch, seq = trace.token_ids.shape
        if trace.expert_ids.numel() == 0:
            raise UserError(
                f"{file} holds {batch} sequences of {seq} tokens in {len(trace.layer_ids)} layers; remove it"
            )
        self.sequence_length = self.sequence_length or seq
        if seq != self.sequence_length:
            raise UserError(
                f"{file} has sequences of {seq} tokens, {self.files[0]} of {self.sequence_length}; evaluate one length "
                "at a time"
            )
        if trace.domain_ids is None:
            names, ids = [file.stem], torch.zeros(batch, dtype=torch.int64)
        else:
            ids = trace.domain_ids.long()
            names = list(trace.domains) or [str(d) for d in range(int(ids.max()) + 1)]
        common = torch.tensor([self._number(names[d]) if (ids == d).any() else 0 for d in range(len(names))])
        return trace.with_domains(common[ids], tuple(self.domains))

    def _number(self, domain: str) -> int:
        if domain not in self.domains:
            self.domains.append(domain)
        return self.domains.index(domain)
