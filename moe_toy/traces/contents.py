"""What a file holds, whether or not it was packed by gzip."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from moe_toy.errors import UserError

MOST_PACKED = 100
"""A kilobyte of zeros can be packed to a few bytes."""
LONGEST_LINE = 2**20
HEAD = 2**16


def is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def head(path: Path) -> bytes:
    """The first bytes, unpacked."""
    try:
        with gzip.open(path) if is_packed(path) else path.open("rb") as file:
            return file.read(HEAD)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}); save it again") from error


def contents(path: Path) -> bytes:
    """All bytes, unpacked. Raises `ValueError` where they are far more than the file."""
    if not is_packed(path):
        return path.read_bytes()
    most = MOST_PACKED * path.stat().st_size
    with gzip.open(path) as file:
        unpacked = file.read(most + 1)
    if len(unpacked) > most:
        raise ValueError(f"it unpacks to more than {MOST_PACKED} times its size")
    return unpacked


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not empty, with their numbers from 1. Refuses what is no text."""
    number = 0
    try:
        with gzip.open(path) if is_packed(path) else path.open("rb") as file:
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                if len(line) > LONGEST_LINE:
                    raise UserError(f"{path}: line {number} is longer than {LONGEST_LINE} bytes; write a line per row")
                if b"\0" in line:
                    raise UserError(f"{path}: line {number} holds a NUL byte; save it again as UTF-8 text")
                text = line.decode().strip("\r\n\ufeff")
                if text.strip():
                    yield number, text
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read after line {number} ({error}); save it again as UTF-8 text") from error


def bare_name(path: Path) -> str:
    """Without the endings of its format and of gzip."""
    return Path(path.name.removesuffix(".gz")).stem
