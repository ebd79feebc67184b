"""What surrounds a run: first and last words, closing the loggers."""

import logging
from pathlib import Path

from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from moe_toy.training.lit_moe import LitMoE

log = logging.getLogger(__name__)


@rank_zero_only
def greet(module: LitMoE, data: LightningDataModule) -> None:
    config = module.model.config
    log.info(
        "%.2fM parameters (%.2fM active): %d layers, %d of them MoE with %d routed experts, top %d, %d shared",
        config.total_parameters / 1e6,
        config.active_parameters / 1e6,
        config.num_layers,
        len(config.moe_layers),
        config.moe.num_experts,
        config.moe.top_k,
        config.moe.num_shared_experts,
    )


def finish_loggers(loggers: list[Logger]) -> None:
    """Close each W&B run, so that the next job of a multirun gets its own."""
    for logger in loggers:
        logger.finalize("success")
        if isinstance(logger, WandbLogger):
            logger.experiment.finish(quiet=True)


@rank_zero_only
def say_goodbye(trainer: Trainer, run_dir: Path) -> None:
    """The last lines of a run: its final scores, and where everything is."""
    shown = ("val/loss", "val/bits_per_byte", "routing/srp@16")
    scores = {name: trainer.logged_metrics[name] for name in shown if name in trainer.logged_metrics}
    log.info("finished step %d: %s", trainer.global_step, ", ".join(f"{k} {v:.4f}" for k, v in scores.items()))
    log.info("run directory: %s", run_dir)
    for entry in sorted(run_dir.iterdir()):
        log.info("  %s", entry.name + ("/" if entry.is_dir() else ""))
