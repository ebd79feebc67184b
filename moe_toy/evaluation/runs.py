"""Finished evaluations, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moe_toy.errors import UserError
from moe_toy.evaluation.output_folder import OutputFolder
from moe_toy.results import COMPARISON, Results


class FinishedRuns:
    """`paths` are folders that `evaluate.py` wrote."""

    def __init__(self, *, paths: Sequence[str | Path]) -> None:
        self.paths = [Path(path) for path in paths]

    def check(self) -> None:
        if not self.paths:
            raise UserError("target.paths is empty; give the folders of finished evaluations, as target.paths=[a,b]")
        for path in self.paths:
            Results.load_model(path)

    def check_folder(self, out_dir: Path) -> None:
        """Raise `UserError` unless the folder is free for this comparison."""
        OutputFolder(out_dir).check(self._identity())

    def claim(self, out_dir: Path) -> None:
        OutputFolder(out_dir).claim(self._identity())

    def _identity(self) -> dict[str, Any]:
        return {"target": {"kind": COMPARISON, "paths": [str(path.resolve()) for path in self.paths]}, "data": None}
