"""One process at a time in a directory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from moe_toy.errors import UserError

LOCK = ".lock"


@contextmanager
def lock_directory(directory: Path, refusal: str) -> Iterator[None]:
    """Raise `UserError(refusal)` while another process holds it. The system frees it of one that dies, however it
    dies."""
    lock = FileLock(directory / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(refusal) from None
    try:
        yield
    finally:
        lock.release()
