"""Models as `conf/` describes them."""

from pathlib import Path

from hydra import compose, initialize_config_dir

from moe_toy.model.config import ModelConfig, MoEConfig

CONF = Path(__file__).resolve().parent.parent / "conf"


def model_config(*overrides: str) -> ModelConfig:
    """That of `python train.py` with such overrides."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", list(overrides))
    return ModelConfig(**{**cfg.model, "moe": MoEConfig(**cfg.moe)})
