"""Reading our own checkpoints without executing anything in them."""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from moe_toy.errors import UserError

PREFIX = "model."


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The checkpoint at `path`, on the CPU; only tensors and plain values are unpickled."""
    if not path.is_file():
        raise UserError(f"ckpt_path: no such file, given {path}; pass a .ckpt file of a run directory's checkpoints/")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"ckpt_path: {path} is damaged or not a checkpoint of ours; pass another one") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(f"ckpt_path: {path} holds no training state; pass a checkpoint that train.py wrote")
    return checkpoint


def check_fits(path: Path, model: nn.Module) -> None:
    """Refuse a checkpoint whose weights have other names or shapes than the configured model's."""
    saved = {
        name.removeprefix(PREFIX): tuple(tensor.shape)
        for name, tensor in load_checkpoint(path)["state_dict"].items()
        if name.startswith(PREFIX)
    }
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in sorted(saved.keys() | wanted.keys()):
        if saved.get(name) != wanted.get(name):
            raise UserError(
                f"ckpt_path: {path} does not fit this model: {name} is {saved.get(name, 'absent')} in the checkpoint "
                f"and {wanted.get(name, 'absent')} in the config; use the model and moe settings it was trained with"
            )
