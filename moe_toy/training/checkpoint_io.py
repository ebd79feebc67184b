"""How Lightning's Trainer reads and writes checkpoints (conf/trainer)."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import TorchCheckpointIO

from moe_toy.runs.checkpoint import Checkpoint
from moe_toy.runs.checkpoint_file import save_checkpoint, tensors_in


class AtomicCheckpointIO(TorchCheckpointIO):
    """Files appear whole or not at all; damage is noticed; reading executes nothing that a file contains."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """`storage_options`, which Lightning passes through, is a function that writes it in another way, or None."""
        write = save_checkpoint if storage_options is None else storage_options
        write(checkpoint, Path(path))

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        checkpoint = Checkpoint.open(path).content
        _unmap(checkpoint)
        return checkpoint


@torch.no_grad()
def _unmap(checkpoint: dict[str, Any]) -> None:
    """Give every tensor memory of its own in place of the file's; what shared memory still does."""
    copies = {}
    for tensor in tensors_in(checkpoint):
        storage = tensor.untyped_storage()
        # With the original, whose address would else be free for another.
        if storage._cdata not in copies:
            copies[storage._cdata] = storage, storage.clone()
        tensor.set_(copies[storage._cdata][1], tensor.storage_offset(), tensor.size(), tensor.stride())
