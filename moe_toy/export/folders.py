"""Folders that appear whole or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moe_toy.errors import UserError


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write into; it takes the name `out` if the block ends well and vanishes if not."""
    if out.exists():
        raise UserError(f"out: {out} exists; give another folder or remove it")
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        yield part
        part.rename(out)
    except OSError as error:
        raise UserError(f"out: cannot write {out} ({error}); give another folder") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
