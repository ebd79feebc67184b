"""Checkpoints of `trainer=fsdp`: a folder with one file of shards per rank, readable on any number of ranks.

`SHA256SUMS`, written last, holds the checksum of every file, as `sha256sum --check` reads it.
"""

import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moe_toy.files.atomic import replace
from moe_toy.runs.checkpoint_file import TOO_MUCH, DamagedError, digest

REST = "meta.pt"  # Lightning's name for what is no tensor
METADATA = ".metadata"  # torch's for where which piece of which tensor lies
CHECKSUMS = "SHA256SUMS"
PREFIX = "state_dict."
PICKLED = {
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size", *(name for name, value in vars(torch).items() if isinstance(value, torch.dtype))},
    "pathlib": {"PosixPath", "WindowsPath"},
    "pathlib._local": {"PosixPath", "WindowsPath"},
}


def is_sharded(path: Path) -> bool:
    return (path / REST).is_file()


def seal(folder: Path) -> None:
    """Say that all files are written, and what they hold."""
    part = folder / f"{CHECKSUMS}.part"
    with part.open("w") as file:
        file.writelines(f"{digest}  {name}\n" for name, digest in _checksums(folder).items())
        file.flush()
        os.fsync(file.fileno())
    replace(part, folder / CHECKSUMS)


def check_sealed(folder: Path) -> None:
    """Raise `DamagedError` unless every file is as it was when the folder was sealed."""
    try:
        lines = (folder / CHECKSUMS).read_text(errors="replace").removesuffix("\n").split("\n")
    except FileNotFoundError:
        raise DamagedError("it was not written to its end") from None
    written, found = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}, _checksums(folder)
    for name in sorted(written.keys() | found.keys()):
        if written.get(name) != found.get(name):
            raise DamagedError(f"{name} is not what was written")


def read_shapes(path: Path) -> dict[str, Tensor]:
    """The weights without their values, on the meta device; no shard is read. Raises `DamagedError`."""
    entries = {name: entry for name, entry in _read_metadata(path).items() if name.startswith(PREFIX)}
    if sum(entry.size.numel() * entry.properties.dtype.itemsize for entry in entries.values()) > _size(path):
        raise DamagedError(TOO_MUCH)
    return {
        name.removeprefix(PREFIX): torch.empty(entry.size, dtype=entry.properties.dtype, device="meta")
        for name, entry in entries.items()
    }


def read_weights(path: Path) -> dict[str, Tensor]:
    """Whole weights, on the CPU. Raises `DamagedError`."""
    weights = {name: torch.empty_like(tensor, device="cpu") for name, tensor in read_shapes(path).items()}
    _fill({PREFIX + name: tensor for name, tensor in weights.items()}, path)
    return weights


class _MetadataUnpickler(pickle.Unpickler):
    """Makes what torch puts into `.metadata` and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in PICKLED.get(module, ()):
            raise DamagedError(f"{METADATA} names {module}.{name}, which is no part of a checkpoint")
        return super().find_class(module, name)


def _read_metadata(folder: Path) -> dict[str, Any]:
    """Of every tensor: its size, dtype and pieces."""
    try:
        with (folder / METADATA).open("rb") as file:
            entries = _MetadataUnpickler(file).load().state_dict_metadata
    except DamagedError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DamagedError(f"{METADATA} is no list of shards ({type(error).__name__})") from error
    return {name: entry for name, entry in entries.items() if hasattr(entry, "size")}  # others are plain bytes


def _fill(weights: dict[str, Tensor], folder: Path) -> None:
    import torch.distributed.checkpoint as dcp  # half a second

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # as asked for
        try:
            dcp.load(weights, storage_reader=dcp.FileSystemReader(folder), no_dist=True)
        except dcp.CheckpointException as error:
            reasons = (str(reason) for reason, _ in error.failures.values())
            raise DamagedError(f"its shards do not fit together: {'; '.join(reasons)}") from error


def _checksums(folder: Path) -> dict[str, str]:
    return {path.name: digest(path) for path in sorted(folder.iterdir()) if not path.name.startswith(CHECKSUMS)}


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
