"""Train a Mixture-of-Experts language model and watch where its tokens go: `python train.py --help`."""

import gc
from pathlib import Path

import hydra
from omegaconf import DictConfig

from moe_toy.checks.mistakes import report_job_errors
from moe_toy.command_line.entry import run_app
from moe_toy.sweep.run_arm import run_arm

CONF = Path(__file__).parent / "conf"
OUTPUT = "hydra.run.dir; what was saved before is intact, and ckpt_path=auto continues from it"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def main(cfg: DictConfig) -> None:
    with report_job_errors(OUTPUT):
        if cfg.sweep_name is None:
            run(cfg)
        else:
            cfg.ckpt_path = "auto"
            run_arm(Path(cfg.run_dir), lambda: run(cfg))


def run(cfg: DictConfig) -> None:
    from moe_toy.training.run import run  # with all that is heavy, so that --help answers at once

    gc.enable()  # `run_app` had switched it off
    run(cfg)


if __name__ == "__main__":
    run_app(main, CONF, "train", OUTPUT)
