"""What surrounds a run: its config on disk, first and last words, closing the loggers."""

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from moe_toy.errors import UserError
from moe_toy.files.atomic import save_atomically
from moe_toy.runs.checkpoint import Checkpoint
from moe_toy.runs.run_directory import (
    CHECKPOINTS,
    CONFIG,
    CURVES,
    METRICS,
    STRONGEST_TOKENS,
    TEXT,
    TOKENIZER,
    RunDirectory,
)
from moe_toy.training.lit_moe import LitMoE

log = logging.getLogger(__name__)
EXPECTED_WARNINGS = (
    "Experiment logs directory .* exists and is not empty",  # Hydra has just made it
    "Checkpoint directory .* exists and is not empty",  # an interrupted arm goes on where it was
    "The '.*_dataloader' does not have many workers",  # tokens are read from a memory map: workers only cost
    ".*treespec, LeafSpec.* is deprecated",  # inside Lightning
    "Found .* module.* in eval mode at the start of training",
    "It is recommended to use .*sync_dist=True",  # callbacks log what is already summed over ranks
    "The number of training batches .* is smaller than the logging interval",  # `log_start` says it
    "You requested to overfit but enabled train dataloader shuffling",  # ours does not shuffle
    "Detected an existing checkpoint in .*, overwriting",  # sharded last.ckpt and best.ckpt are written again and again
)
TALKATIVE = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.pytorch.accelerators.cuda",  # which GPU, at each validation
)
CONTENTS = {
    CURVES: "the curves of this run",
    METRICS: "every logged number",
    STRONGEST_TOKENS: "which tokens belong most to each expert",
    CONFIG: "the resolved config",
    TOKENIZER: "the tokenizer it was trained with",
    CHECKPOINTS: "last.ckpt, best.ckpt; continue with hydra.run.dir=... ckpt_path=auto",
    TEXT: "fingerprint of the text it was trained on",
    "wandb": "`wandb leet` with this folder shows it in the terminal, `wandb sync` with its run online",
    "tensorboard": "`tensorboard --logdir` shows it",
}


def quieten() -> None:
    """Leave on the screen what a user can act on."""
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)


@rank_zero_only
def record_config(config: dict[str, Any], run_dir: Path, loggers: Sequence[Logger]) -> None:
    """The resolved config, in the run directory and with the loggers that show it."""
    with save_atomically(RunDirectory(run_dir).config) as part:
        part.write_text(yaml.safe_dump(config, sort_keys=False))
    for logger in loggers:
        if not isinstance(logger, CSVLogger):
            logger.log_hyperparams(config)


@rank_zero_only
def tell_of_objective(config: dict[str, Any], before: Path) -> None:
    """Warn of each number of the loss that differs from the config at `before`, which the run goes on from."""
    try:
        was = objective(yaml.safe_load(before.read_text()))
    except (OSError, ValueError, TypeError, AttributeError, KeyError, yaml.YAMLError):
        return  # it is not there any more, or is not ours
    now = objective(config)
    for key in sorted(was.keys() | now.keys()):
        if was.get(key) != now.get(key):
            log.warning("%s was %s, and is %s from here on", key, was.get(key), now.get(key))


def objective(config: dict[str, Any]) -> dict[str, Any]:
    """By key, what a config adds to the cross-entropy."""
    parts = {f"{part}.{key}": value for part in ("balance", "locality") for key, value in config[part].items()}
    return parts | {"moe.z_loss_coefficient": config["moe"]["z_loss_coefficient"]}


def check_tokenizer(file: Path, weights: Checkpoint) -> None:
    """Refuse to go on from `weights` with another tokenizer than lies in their run directory."""
    theirs = weights.run.tokenizer
    if theirs.is_file() and theirs.read_bytes() != file.read_bytes():
        raise UserError(
            f"data.tokenizer: the text or the settings of the tokenizer have changed, and {weights.path} was trained "
            f"with another one; pass data.tokenizer={theirs}"
        )


@rank_zero_only
def record_tokenizer(file: Path, run_dir: Path) -> None:
    """The tokenizer, in the run directory: without it the weights mean nothing."""
    content = file.read_bytes()
    with save_atomically(RunDirectory(run_dir).tokenizer) as part:
        part.write_bytes(content)


@rank_zero_only
def record_text(fingerprint: str, domains: Sequence[str], run_dir: Path) -> None:
    """Which text it is, in the run directory, so that the run can be measured on the same later."""
    record = {"fingerprint": fingerprint, "domains": list(domains)}
    with save_atomically(RunDirectory(run_dir).text) as part:
        part.write_text(json.dumps(record, indent=2) + "\n")


@rank_zero_only
def log_start(module: LitMoE, trainer: Trainer, sequence_length: int) -> None:
    """The first words of a run, and what tells it from others in a table of runs."""
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
    sizes = {
        "total_parameters": config.total_parameters,
        "active_parameters": config.active_parameters,
        "flops_per_token": config.flops_per_token(sequence_length),
    }
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.summary.update(sizes)  # columns of the table of runs
    if trainer.loggers and 0 < trainer.max_steps < trainer.log_every_n_steps:
        log.info(
            "the %d steps are fewer than trainer.log_every_n_steps=%d: none of them is logged, only validations",
            trainer.max_steps,
            trainer.log_every_n_steps,
        )


@contextmanager
def closing(loggers: Sequence[Logger]) -> Iterator[None]:
    """Close the loggers however the block ends, so that the next job of a multirun gets a W&B run of its own."""
    status = "failed"
    try:
        yield
        status = "success"
    finally:
        for logger in loggers:
            logger.finalize(status)
            if isinstance(logger, WandbLogger):
                logger.experiment.finish(exit_code=int(status == "failed"))


@rank_zero_only
def log_outputs(trainer: Trainer, run_dir: Path) -> None:
    """The last lines of a run: its final scores, and where everything is."""
    shown = ("val/loss", "val/bits_per_byte", "consistency/srp@16", "load/cv", "specialization/domain")
    scores = [f"{name} {trainer.callback_metrics[name]:.4f}" for name in shown if name in trainer.callback_metrics]
    if trainer.fast_dev_run:  # whose validation is of the first domains
        log.info("tried %d steps and a validation; nothing is kept of them", trainer.global_step)
    else:
        log.info("finished step %d: %s", trainer.global_step, ", ".join(scores))
    if RunDirectory(run_dir).metrics.exists():  # not where all steps were done before
        from moe_toy.pictures.curves import save_curves  # pandas takes half a second

        save_curves(run_dir)
    log.info("run directory: %s", run_dir)
    for name, meaning in CONTENTS.items():
        if (run_dir / name).exists():
            log.info("  %-20s %s", name, meaning)
