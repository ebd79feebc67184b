"""Measure how consistently a model routes and what a cache of experts would gain: `python evaluate.py --help`."""

import gc
from pathlib import Path

import hydra
from omegaconf import DictConfig

from moe_toy.checks.mistakes import report_job_errors
from moe_toy.command_line.entry import run_app

CONF = Path(__file__).parent / "conf"
OUTPUT = "out_dir; what was there is intact"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Measure the target and write its report; `strict` leaves with exit code 1 if a claim fails."""
    from moe_toy.evaluation.command import run  # with all that is heavy, so that --help answers at once

    gc.enable()  # `run_app` had switched it off
    with report_job_errors(OUTPUT):
        run(cfg)


if __name__ == "__main__":
    run_app(main, CONF, "evaluate", OUTPUT)
