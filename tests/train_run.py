"""train.py in this process, from overrides to a run directory."""

from pathlib import Path

from hydra import compose, initialize_config_dir

import train
from moe_toy.training import preflight
from tests.paths import CONF


def run_training(run_dir: Path, *overrides: str) -> Path:
    """The directory, which may hold a run already."""
    run_dir.mkdir(exist_ok=True)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [*overrides, f"run_dir={run_dir}", f"name={run_dir.name}"])
    preflight.check(cfg)
    preflight.prepare(cfg)
    train.main.__wrapped__(cfg)
    return run_dir
