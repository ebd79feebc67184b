"""Checkpoints of `trainer=fsdp`: a folder with one file of shards per rank, readable on any number of ranks."""

import warnings
from pathlib import Path
from typing import Any

import torch

REST = "meta.pt"  # Lightning's name for what is no tensor
PREFIX = "state_dict."


def is_sharded(path: Path) -> bool:
    return (path / REST).is_file()


def load_sharded(path: Path, *, shapes_only: bool = False) -> dict[str, Any]:
    """What a checkpoint in one file would hold, without the optimiser's states; weights whole, on the CPU.

    With `shapes_only` the weights are on the meta device, and no shard is read.
    """
    import torch.distributed.checkpoint as dcp  # half a second

    reader = dcp.FileSystemReader(path)
    weights = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype, device="meta" if shapes_only else "cpu")
        for name, entry in reader.read_metadata().state_dict_metadata.items()
        if name.startswith(PREFIX) and isinstance(entry, dcp.metadata.TensorStorageMetadata)
    }
    if not shapes_only:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # as asked for
            dcp.load(weights, storage_reader=reader, no_dist=True)
    rest = torch.load(path / REST, map_location="cpu", weights_only=True)
    return {**rest, "state_dict": {name.removeprefix(PREFIX): tensor for name, tensor in weights.items()}}
