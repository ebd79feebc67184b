"""Finished evaluations, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moe_toy.errors import UserError
from moe_toy.results import Results


class FinishedRuns:
    """`paths` are folders that `evaluate.py` wrote."""

    def __init__(self, *, paths: Sequence[str | Path]) -> None:
        self.paths = [Path(path) for path in paths]

    def check(self) -> None:
        if not self.paths:
            raise UserError("target.paths is empty; give the folders of finished evaluations, as target.paths=[a,b]")
        for path in self.paths:
            Results.load(path)
