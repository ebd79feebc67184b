"""Files that appear whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def save_atomically(path: Path) -> Iterator[Path]:
    """A file beside `path` to write, which takes its place at the end. If that fails, `path` stays as it was."""
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
