"""How Lightning's Trainer reads and writes checkpoints (conf/trainer)."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import TorchCheckpointIO
from torch import Tensor
from torch.utils._pytree import tree_map_only

from moe_toy.training.checkpoint import load_checkpoint
from moe_toy.training.checkpoint_file import save_whole


class AtomicCheckpointIO(TorchCheckpointIO):
    """Files appear whole or not at all; damage is noticed; reading executes nothing that a file contains."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        save_whole(checkpoint, Path(path))

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        checkpoint = load_checkpoint(Path(path))
        return tree_map_only(Tensor, torch.clone, checkpoint)  # nothing that is trained stays mapped to the file
