"""Whether recordings that are evaluated together are of one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moe_toy.errors import UserError
from moe_toy.routing import RoutingTrace

LONGEST = 60
"""Characters of a list that a message shows."""


class OneModel:
    """What recordings have in common, file by file, before anything is counted."""

    def __init__(self) -> None:
        self.lengths: set[int] = set()
        """Of the sequences of all files."""
        self.with_ids: Path | None = None
        self.without_ids: Path | None = None
        """A file that knows the ids of its tokens, and one that does not."""
        self._first: tuple[Path, dict[str, Any]] | None = None

    def add(self, file: Path, trace: RoutingTrace) -> None:
        """Raise `UserError`, naming both files, if the trace in `file` is of another model than those before it."""
        self.lengths.add(trace.sequence_length)
        if trace.token_ids is None:
            self.without_ids = file
        else:
            self.with_ids = file
        facts = {
            "MoE layers": list(trace.layer_ids),
            "experts in each layer": trace.num_experts,
            "experts for each token": trace.expert_ids.shape[3],
            "tokens in the vocabulary": trace.vocab_size,
            "predicted tokens": "known" if trace.predicted_ids is not None else "unknown",
            "bytes of an expert": trace.expert_bytes and list(trace.expert_bytes),
        }
        if trace.vocab_size is not None:  # else nothing needs them
            facts["ranks of experts"] = "known" if trace.ordered and not trace.padded else "unknown"
        first, expected = self._first = self._first or (file, facts)
        for name, value in facts.items():
            if value != expected[name]:
                raise UserError(
                    f"{file} and {first} are not of one model: {name} are {_short(value)} in the one and "
                    f"{_short(expected[name])} in the other; evaluate them apart"
                )


def _short(value: Any) -> str:
    text = "unknown" if value is None else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
