"""Models as `conf/` describes them."""

import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a borrowed machine has it in no environment

from moe_toy.model.config import ModelConfig, MoEConfig  # noqa: E402

CONF = ROOT / "conf"


def configured(*overrides: str) -> DictConfig:
    """What `python train.py` with such overrides would train."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides))


def model_config(*overrides: str) -> ModelConfig:
    cfg = configured(*overrides)
    return ModelConfig(**{**cfg.model, "moe": MoEConfig(**cfg.moe)})
