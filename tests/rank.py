"""One rank of distributed runs: `torchrun --nproc-per-node 2 -m tests.rank JOBS`, a list of [directory, overrides]."""

import json
import sys
from functools import partial
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch.callbacks import Callback

import train
from moe_toy.model.compiled_blocks import compile_blocks
from moe_toy.training import lit_moe, preflight
from tests.paths import CONF


class SaveGradients(Callback):
    """Writes what the optimiser is about to see."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_before_optimizer_step(self, trainer, module, optimizer) -> None:
        if trainer.is_global_zero:
            gradients = {name: parameter.grad.clone() for name, parameter in module.named_parameters()}
            torch.save(gradients, self.folder / f"gradients-{trainer.global_step}.pt")


def train_in(run_dir: Path, overrides: list[str]) -> None:
    run_dir.mkdir(exist_ok=True)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [*overrides, f"run_dir={run_dir}", "name=test"])
    preflight.check(cfg)
    preflight.prepare(cfg)
    train.main.__wrapped__(cfg)


if __name__ == "__main__":
    lit_moe.compile_blocks = partial(compile_blocks, backend="aot_eager")  # which takes seconds
    for run_dir, overrides in json.loads(Path(sys.argv[1]).read_text()):
        train_in(Path(run_dir), overrides)
