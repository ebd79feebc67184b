"""Measure how consistently a model routes and what a cache of experts would gain: `python evaluate.py --help`."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from moe_toy.command_line.entry import run_checked, told_in_one_line

# Heavy imports stay inside functions, so that --help answers at once.
CONF = Path(__file__).parent / "conf"


def check(cfg: DictConfig) -> None:
    """Find what is wrong with a config before anything is created or fetched for it."""
    from moe_toy.evaluation import command

    command.check(cfg)


def prepare(cfg: DictConfig) -> None:
    """Assemble and tokenise the text, and see that it fits the model and that the output folder is free."""
    from moe_toy.evaluation import command

    command.prepare(cfg)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Measure the target and write its report; `strict` leaves with exit code 1 if a claim fails."""
    from moe_toy.evaluation import command

    with told_in_one_line():
        command.run(cfg)


if __name__ == "__main__":
    run_checked(main, (check, prepare), CONF, "evaluate")
