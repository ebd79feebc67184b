"""Models as `conf/` describes them."""

from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from moe_toy.model.config import ModelConfig, MoEConfig

CONF = Path(__file__).resolve().parent.parent / "conf"


def configured(*overrides: str) -> DictConfig:
    """What `python train.py` with such overrides would train."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides))


def model_config(*overrides: str) -> ModelConfig:
    cfg = configured(*overrides)
    return ModelConfig(**{**cfg.model, "moe": MoEConfig(**cfg.moe)})
