"""Checkpoint files that appear whole or not at all, and that tell when they have been damaged."""

import errno
import hashlib
import os
import pickletools
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch.storage import TypedStorage

from moe_toy.files.atomic import replace

END_OF_ZIP = b"PK\x05\x06"
END_SIZE = 22  # without a comment, whose length is the last two bytes
LABEL = b"sha256:"
COMMENT_SIZE = len(LABEL) + 64
CLOCK_NS = 100_000_000
"""Writes that are closer than this may get equal times from a file system."""
_digests: dict[tuple[int | None, ...], str] = {}
TOO_MUCH = "it declares more data than it holds"
DTYPES = {f"torch {name}" for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
STORAGES = {f"torch {name}" for name in vars(torch) if name.endswith("Storage")}
REBUILD = {"torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"}
NAMES = {"collections OrderedDict", "__builtin__ set", "torch Size", *REBUILD, *DTYPES, *STORAGES}
"""What a checkpoint is made of, besides plain values."""


class DamagedError(ValueError):
    """Why a file cannot be what was once written to it."""


def save_checkpoint(content: Any, path: Path, is_cancelled: Callable[[], bool] = lambda: False) -> None:
    """Write beside `path`, sync, rename. The comment of the zip file that torch writes, which other readers pass over,
    holds the SHA-256 of all before it. Once `is_cancelled`, the next write fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            hashing = _Hashing(file, is_cancelled)
            _save(content, hashing)
            comment = LABEL + hashing.sha256.hexdigest().encode()
            file.seek(-2, os.SEEK_END)
            file.write(len(comment).to_bytes(2, "little") + comment)
            file.flush()
            os.fsync(file.fileno())
        if path.is_dir():  # shards that were not written to their end
            shutil.rmtree(path)
        replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load_intact(path: Path) -> Any:
    """What was saved at `path`, on the CPU; takes no more memory than the file is long."""
    check_intact(path)
    try:
        _check_names(path)
        # Mapped, since only then does torch hold what is declared against the length of the file.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError as error:
        if error.errno != errno.EINVAL:  # an offset outside of the file
            raise
        raise DamagedError(str(error)) from error
    except Exception as error:  # torch, pickle and zip each raise their own kinds
        raise DamagedError(str(error).partition("\n")[0]) from error
    size, tensors = path.stat().st_size, list(tensors_in(content))
    if not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise DamagedError("it holds numbers that are no tensor's")
    storages = {(storage := tensor.untyped_storage())._cdata: storage.nbytes() for tensor in tensors}
    if sum(storages.values()) > size or any(tensor.nbytes > size for tensor in tensors):
        raise DamagedError(TOO_MUCH)
    return content


def check_intact(path: Path) -> None:
    """Raise `DamagedError` unless the checksum is right, or there is none as in files of others, and no part is
    packed: a kilobyte can unpack to gigabytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - END_SIZE - COMMENT_SIZE))
        tail = file.read()
        if tail[:4] == END_OF_ZIP and tail[END_SIZE:].startswith(LABEL):
            if tail[END_SIZE - 2 : END_SIZE] != COMMENT_SIZE.to_bytes(2, "little"):
                raise DamagedError("its end is garbled")
            if digest(path, size - COMMENT_SIZE - 2, b"\0\0") != tail[-64:].decode(errors="replace"):
                raise DamagedError("its checksum is wrong")
        elif tail[-END_SIZE:][:4] != END_OF_ZIP or tail[-2:] != b"\0\0":
            raise DamagedError("its end is missing")
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise DamagedError(str(error)) from error
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts) or sum(p.file_size for p in parts) > size:
        raise DamagedError(TOO_MUCH)


def tensors_in(content: Any) -> Iterator[Tensor | TypedStorage]:
    """Every tensor, or storage without one, in nested containers and their attributes; everything once, since a file
    can let a container contain itself."""
    seen, waiting = set(), [content]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Tensor | TypedStorage):
            yield item
        if isinstance(item, dict | list | tuple | set):
            waiting += item.values() if isinstance(item, dict) else item
        if isinstance(item, dict | Tensor):
            waiting += getattr(item, "__dict__", {}).values()


def _check_names(path: Path) -> None:
    """Of what torch would unpickle, some kinds take any number as a size to make room for."""
    with zipfile.ZipFile(path) as archive:
        for part in archive.namelist():
            if part.lower().endswith("data.pkl"):
                for operation, name, _ in pickletools.genops(archive.read(part)):
                    if operation.name == "GLOBAL" and name not in NAMES:
                        raise DamagedError(f"it names {name}, which is no part of a checkpoint")


class _Hashing:
    """A file that knows the SHA-256 of what was written to it."""

    def __init__(self, file: BinaryIO, is_cancelled: Callable[[], bool]) -> None:
        self.file, self.sha256, self.is_cancelled = file, hashlib.sha256(), is_cancelled
        self.error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        self.sha256.update(data)
        try:
            if self.is_cancelled():
                raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
            return self.file.write(data)
        except OSError as error:
            self.error = error  # torch would hide it behind its own
            raise

    def flush(self) -> None:
        self.file.flush()


def _save(content: Any, file: _Hashing) -> None:
    try:
        torch.save(content, file)
    except (RuntimeError, OSError):
        if file.error is not None:
            raise OSError(file.error.errno, file.error.strerror, file.file.name) from None
        raise


def digest(path: Path, length: int | None = None, end: bytes = b"") -> str:
    """The SHA-256 of the first `length` bytes of a file, or of all of it, and of `end`.

    A file that has not changed since is hashed once in a process, under whichever name. One that was written a moment
    ago is not remembered: what the clock of the file system cannot tell apart might be written over it.
    """
    stat = path.stat()
    state = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, length)
    if state not in _digests:
        started = time.time_ns()
        sha256 = hash_file(path, stat.st_size if length is None else length)
        sha256.update(end)
        if started - stat.st_mtime_ns < CLOCK_NS:
            return sha256.hexdigest()
        _digests[state] = sha256.hexdigest()
    return _digests[state]


def hash_file(path: Path, length: int) -> "hashlib._Hash":
    """Read it all."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while length > 0 and (block := file.read(min(length, 1 << 20))):
            sha256.update(block)
            length -= len(block)
    return sha256
