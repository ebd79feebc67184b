"""What the directory of an arm says about it. Killing a process at any moment leaves it readable and true."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from filelock import FileLock, Timeout

from moe_toy.files.atomic import save_atomically
from moe_toy.files.reading import reading

RECORD = "arm.json"


class State(StrEnum):
    TO_DO = "to do"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    DONE = "done"


@dataclass(frozen=True)
class Record:
    state: State = State.TO_DO
    seconds: float = 0.0
    """Of all tries, but for those that were killed."""
    error: str | None = None
    identity: str | None = None
    """Of the config that the directory is for; None in directories of earlier versions."""
    choices: dict[str, str] = field(default_factory=dict)
    """What it varied when it was first asked for: a value, as on the command line, for each key."""

    def write(self, directory: Path) -> None:
        with save_atomically(directory / RECORD) as part:
            part.write_text(json.dumps(asdict(self)) + "\n")


def read_record(directory: Path) -> Record:
    """An arm recorded as running is `INTERRUPTED` once no process holds its lock."""
    with reading(directory / RECORD):
        try:
            saved = json.loads((directory / RECORD).read_text())
            about = saved.get("identity"), saved.get("choices", {})
            record = Record(State(saved["state"]), float(saved["seconds"]), saved["error"], *about)
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # nothing there, or damaged by hand
            return Record()
    if record.state is State.RUNNING and not is_locked(directory):
        return replace(record, state=State.INTERRUPTED)
    return record


def lock(directory: Path) -> FileLock:
    """Held while an arm trains; the operating system lets go of it however the process ends."""
    return FileLock(directory / "arm.lock", timeout=0)


def is_locked(directory: Path) -> bool:
    try:
        with lock(directory):
            return False
    except Timeout:
        return True
