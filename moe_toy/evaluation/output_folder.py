"""The folder of one evaluation: refused while it holds anything else, so that nothing is ever overwritten."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moe_toy.errors import UserError
from moe_toy.files.atomic import save_atomically
from moe_toy.files.lock import LOCK, lock_directory
from moe_toy.files.reading import reading

IDENTITY = "evaluation.json"
PART = f"{IDENTITY}.part"
TRACES = "traces"


class OutputFolder:
    """`evaluation.json` says whose results these are; `traces/` holds finished domains until all are measured."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.traces = path / TRACES

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Refuse a second process in the folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        refusal = f"out_dir: another process is evaluating into {self.path}"
        with lock_directory(self.path, f"{refusal}; wait for it, stop it, or choose another out_dir"):
            yield

    def check(self, identity: dict[str, Any]) -> None:
        """Raise `UserError` unless the folder is new, empty but for an interrupted start, or of the same evaluation."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"out_dir={self.path} is a file; choose a folder")
        if not self.path.exists() or {file.name for file in self.path.iterdir()} <= {LOCK, PART}:
            return
        with reading(self.path / IDENTITY):
            try:
                held = json.loads((self.path / IDENTITY).read_text())
            except (FileNotFoundError, ValueError):
                raise UserError(f"out_dir={self.path} holds files of something else; choose another out_dir") from None
        difference = first_difference(held, json.loads(json.dumps(identity)))
        if difference is not None:
            raise UserError(
                f"out_dir={self.path} holds the results of another evaluation ({difference}); choose another out_dir"
            )

    def check_free(self) -> None:
        """Raise `UserError` if an evaluation lies in the folder."""
        if (self.path / IDENTITY).exists():
            raise UserError(f"out_dir={self.path} holds the results of an evaluation; choose another out_dir")

    def write_identity(self, identity: dict[str, Any]) -> None:
        """Say in the folder whose results these will be. Raises `UserError` as `check` does."""
        self.check(identity)
        self.path.mkdir(parents=True, exist_ok=True)
        with save_atomically(self.path / IDENTITY) as part:
            part.write_text(json.dumps(identity, indent=2) + "\n")

    def remove_traces(self) -> None:
        shutil.rmtree(self.traces, ignore_errors=True)


def first_difference(held: Any, given: Any, key: str = "") -> str | None:
    if isinstance(held, dict) and isinstance(given, dict):
        inner = (
            first_difference(held.get(name), given.get(name), f"{key}.{name}" if key else name)
            for name in dict.fromkeys([*held, *given])
        )
        return next((difference for difference in inner if difference), None)
    return None if held == given else f"{key} {held} there, {given} now"
