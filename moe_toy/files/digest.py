"""The content of files as a key: what is equal is equal content, whatever names, sizes and times say."""

import hashlib
from functools import lru_cache
from pathlib import Path

from moe_toy.files.reading import reading


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, read once in a process (about a gigabyte a second) as long as it does not change."""
    return _content_digest(path, *_state(path))


def _state(path: Path) -> tuple[int, ...]:
    """What changes with the content of a file: nobody can set back the time of change that the system keeps."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


@lru_cache(maxsize=100_000)
def _content_digest(path: Path, *state: int) -> str:
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
