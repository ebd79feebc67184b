"""Reading our own checkpoints without executing anything in them."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from moe_toy.errors import UserError
from moe_toy.model.config import ModelConfig, MoEConfig
from moe_toy.runs.checkpoint_file import DamagedError, load_intact
from moe_toy.runs.sharded_checkpoint import is_sharded, load_sharded

PREFIX = "model."
BALANCER = "balancer."


def load_checkpoint(path: Path, key: str = "ckpt_path", *, shapes_only: bool = False) -> dict[str, Any]:
    """The checkpoint at `path`, given as `key`, on the CPU; only tensors and plain values are unpickled.

    `shapes_only` spares reading the weights where those are sharded (a single file is mapped, not read).
    """
    if not path.is_file() and not is_sharded(path):
        raise UserError(f"{key}: no such file, given {path}; pass a .ckpt file of a run directory's checkpoints/")
    try:
        checkpoint = load_sharded(path, shapes_only=shapes_only) if path.is_dir() else load_intact(path)
    except DamagedError as error:
        raise UserError(f"{key}: {path} is damaged or not a checkpoint of ours ({error}); pass another one") from error
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(x, Tensor) and isinstance(n, str) for n, x in state.items()):
        raise UserError(f"{key}: {path} holds no training state; pass a checkpoint that train.py wrote")
    return checkpoint


def load_weights(path: Path, model: nn.Module) -> None:
    """Give `model` the weights saved at `path`, and the state of its balancer if that was saved too."""
    wanted, saved = model.state_dict(), model_state(load_checkpoint(path, key="init_from"))
    model.load_state_dict({name: tensor for name, tensor in saved.items() if name in wanted}, strict=False)


def check_continues(path: Path, model: nn.Module, optimizer: dict[str, Any]) -> None:
    """Refuse a checkpoint, given as `ckpt_path`, of another model or optimiser than the configured ones."""
    checkpoint = load_checkpoint(path, shapes_only=True)
    check_shapes(path, "ckpt_path", model_state(checkpoint), model.state_dict())
    saved, wanted = checkpoint.get("hyper_parameters", {}).get("optimizer"), optimizer
    if saved is None:
        raise UserError(f"ckpt_path: {path} holds weights only, which a run can start from: init_from={path}")
    for key in wanted:
        if saved.get(key) != wanted[key]:
            raise UserError(
                f"optimizer.{key}={wanted[key]} differs from {saved.get(key)}, with which {path} goes on; leave it, or "
                f"start anew from its weights: init_from={path} in another hydra.run.dir"
            )


def check_weights_fit(path: Path, model: nn.Module) -> None:
    """Refuse a checkpoint, given as `init_from`, of another model than the configured one. Balancers may differ."""
    saved, wanted = (
        {name: tensor for name, tensor in state.items() if not name.startswith(BALANCER)}
        for state in (model_state(load_checkpoint(path, "init_from", shapes_only=True)), model.state_dict())
    )
    check_shapes(path, "init_from", saved, wanted)


def check_shapes(
    path: Path,
    key: str,
    saved_state: dict[str, Tensor],
    wanted_state: dict[str, Tensor],
    way_out: str = "use the model and moe settings it was trained with",
) -> None:
    """Refuse a checkpoint, given as `key`, unless it has exactly the wanted tensors."""
    saved, wanted = (
        {name: tuple(tensor.shape) for name, tensor in state.items()} for state in (saved_state, wanted_state)
    )
    for name in sorted(saved.keys() | wanted.keys()):
        if saved.get(name) != wanted.get(name):
            raise UserError(
                f"{key}: {path} does not fit this model: {name} is {saved.get(name, 'absent')} in the checkpoint "
                f"and {wanted.get(name, 'absent')} in the config; {way_out}"
            )


def model_config(checkpoint: dict[str, Any]) -> ModelConfig:
    """The config of the model that was saved, which every checkpoint of ours carries."""
    try:
        saved = checkpoint["hyper_parameters"]["model"]
        return ModelConfig(**{**saved, "moe": MoEConfig(**saved["moe"])})
    except (KeyError, TypeError, ValueError) as error:
        raise UserError("the checkpoint carries no model config of ours; pass one that train.py wrote") from error


def model_state(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The state of the model that was saved, its balancer's included."""
    state = checkpoint["state_dict"]
    return {name.removeprefix(PREFIX): tensor for name, tensor in state.items() if name.startswith(PREFIX)}
