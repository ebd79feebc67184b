"""One rank of distributed runs: `torchrun --nproc-per-node 2 -m tests.rank JOBS`, a list of [directory, overrides]."""

import json
import sys
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback

from moe_toy.model.compiled_blocks import compile_blocks
from moe_toy.training import lit_moe
from tests.train_run import run_training


class SaveGradients(Callback):
    """Writes what the optimiser is about to see."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_before_optimizer_step(self, trainer, module, optimizer) -> None:
        if trainer.is_global_zero:
            gradients = {name: parameter.grad.clone() for name, parameter in module.named_parameters()}
            torch.save(gradients, self.folder / f"gradients-{trainer.global_step}.pt")


if __name__ == "__main__":
    lit_moe.compile_blocks = partial(compile_blocks, backend="aot_eager")  # which takes seconds
    for run_dir, overrides in json.loads(Path(sys.argv[1]).read_text()):
        run_training(Path(run_dir), *overrides)
