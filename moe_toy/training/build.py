"""The parts of a run out of its config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig

from moe_toy.model.config import ModelConfig, MoEConfig
from moe_toy.model.transformer import MoETransformer

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.loggers import Logger

# A mistake is told before Lightning, which takes seconds, has to be loaded.


def build_callbacks(cfg: DictConfig) -> list[Callback]:
    """Those of the config. An entry that is null is left out."""
    from lightning.pytorch.callbacks import Checkpoint, ProgressBar

    callbacks = [instantiate(entry) for entry in cfg.callbacks.values() if entry is not None]
    # Lightning refuses what its trainer has switched off.
    switches = {"enable_progress_bar": ProgressBar, "enable_checkpointing": Checkpoint}
    off = tuple(kind for switch, kind in switches.items() if cfg.trainer.get(switch) is False)
    return [callback for callback in callbacks if not isinstance(callback, off)]


def build_loggers(cfg: DictConfig, options: dict[type[Logger], dict[str, Any]]) -> list[Logger]:
    """Those of the config, whatever they are called in it, completed with `options` by kind. An entry that is null is
    left out, and a run that only tries each loop once leaves no curves."""
    if cfg.trainer.get("fast_dev_run"):
        return []
    entries = [entry for entry in cfg.logger.values() if entry is not None]
    return [instantiate(entry, **_of_kind(get_object(entry._target_), options)) for entry in entries]


def _of_kind(target: Any, options: dict[type[Logger], dict[str, Any]]) -> dict[str, Any]:
    kinds = [kind for kind in options if isinstance(target, type) and issubclass(target, kind)]
    return options[kinds[0]] if kinds else {}


def build_model(cfg: DictConfig) -> MoETransformer:
    """The model, with what balances its load and what keeps its routing local."""
    config = ModelConfig(**{**cfg.model, "moe": MoEConfig(**cfg.moe)})
    with torch.random.fork_rng(devices=[]):  # what they draw must not change the weights of all others
        balancer = instantiate(cfg.balance, num_layers=len(config.moe_layers), num_experts=config.moe.num_experts)
        locality = instantiate(cfg.locality)
    return MoETransformer(config, balancer, locality)
