"""A finished sweep, or what is finished of it."""

from __future__ import annotations

from pathlib import Path

from moe_toy.errors import UserError


class FinishedSweep:
    """`path` is the directory of a sweep, which holds `results.parquet`."""

    def __init__(self, *, path: str | Path | None) -> None:
        if path is None:
            raise UserError(
                "target.path is missing; give the directory of a sweep, as target.path=outputs/sweeps/paper"
            )
        self.path = Path(path)

    def check(self) -> None:
        if not (self.path / "results.parquet").is_file():
            raise UserError(
                f"target.path={self.path} holds no results.parquet; give the directory of a sweep with a finished arm"
            )
