"""One arm of a sweep, in whatever process a launcher gives it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from filelock import Timeout

from moe_toy.sweep.record import State, lock, read_record

log = logging.getLogger(__name__)


def run_arm(directory: Path, train: Callable[[], None]) -> None:
    """Call `train`, unless the arm is finished or running elsewhere.

    A failure is recorded and logged, not raised: the other arms go on.
    """
    if read_record(directory).state is State.DONE:
        log.info("finished earlier: %s", directory.name)
        return
    try:
        with lock(directory):
            _train_and_record(directory, train)
    except Timeout:
        log.warning("another process is training %s", directory.name)


def _train_and_record(directory: Path, train: Callable[[], None]) -> None:
    started, before = time.monotonic(), read_record(directory)
    replace(before, state=State.RUNNING, error=None).write(directory)
    state, message = State.RUNNING, None  # as it stays if a signal ends it
    try:
        train()
        state = State.DONE
    except Exception as error:
        log.exception("%s failed", directory.name)
        state, message = State.FAILED, " ".join(f"{type(error).__name__}: {error}".split())
    finally:
        seconds = before.seconds + time.monotonic() - started
        replace(before, state=state, seconds=seconds, error=message).write(directory)
