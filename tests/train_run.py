"""train.py in this process, from overrides to a run directory."""

from pathlib import Path
from unittest.mock import patch

from hydra import compose, initialize_config_dir
from matplotlib.figure import Figure

import train
from moe_toy.pictures.curves import draw_curves
from moe_toy.training import preflight
from tests.paths import CONF


def run_training(run_dir: Path, *overrides: str, curves: bool = False) -> Path:
    """The directory, which may hold a run already. Without `curves` their picture is empty: to draw it takes as long as
    a short run."""
    run_dir.mkdir(exist_ok=True)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [*overrides, f"run_dir={run_dir}", f"name={run_dir.name}"])
    preflight.check(cfg)
    preflight.prepare(cfg)
    with patch("moe_toy.pictures.curves.draw_curves", draw_curves if curves else lambda _: Figure()):
        train.main.__wrapped__(cfg)
    return run_dir
