"""A run, from the text to the last line."""

import logging
from dataclasses import asdict
from pathlib import Path

import torch
from hydra.utils import instantiate
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import Checkpoint as CheckpointOfLightning
from omegaconf import DictConfig, OmegaConf

from moe_toy.model.allocator import keep_freed_memory
from moe_toy.model.transformer import MoETransformer
from moe_toy.runs.checkpoint import SELECTION_BIAS, Checkpoint
from moe_toy.runs.resume import lock_run_directory, logger_options, starting_point
from moe_toy.runs.run_directory import RunDirectory
from moe_toy.training.build import build_callbacks, build_loggers, build_model
from moe_toy.training.checkpoint_callback import CheckpointCallback
from moe_toy.training.config import OptimizerConfig
from moe_toy.training.lit_moe import LitMoE
from moe_toy.training.memory import keeps_activations, report_out_of_memory
from moe_toy.training.process_state import process_restored
from moe_toy.training.session import (
    check_tokenizer,
    closing,
    log_outputs,
    log_start,
    quieten,
    record_config,
    record_text,
    record_tokenizer,
    tell_of_objective,
)
from moe_toy.training.steps import set_steps

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> None:
    """Train the model that a config describes, in its `run_dir`, from its first or its next step to the last."""
    keep_freed_memory()
    with process_restored(), lock_run_directory(Path(cfg.run_dir)):
        quieten()
        if cfg.threads is not None:
            torch.set_num_threads(cfg.threads)
        seed_everything(cfg.seed, workers=True, verbose=False)
        train(cfg, starting_point(cfg.ckpt_path, RunDirectory(Path(cfg.run_dir))))


def train(cfg: DictConfig, start: Checkpoint | None) -> None:
    """From the checkpoint `start`, or anew, to the last step."""
    run_dir = Path(cfg.run_dir)
    data = instantiate(cfg.data)
    model = build_model(cfg)
    values = OmegaConf.to_container(cfg, resolve=True)
    fits = keeps_activations(values, model)
    module = LitMoE(model, OptimizerConfig(**cfg.optimizer), fits)
    initial = Checkpoint.open(cfg.init_from, "init_from") if start is None and cfg.init_from else None
    if weights := start or initial:
        check_tokenizer(data.tokenizer_file, weights)
    if start is not None:
        start.check_continues(module.model, module.model.locality.settings, asdict(module.optimizer_config))
        tell_of_objective(values, start.run.config)
    elif initial is not None:
        initial.load_into(module.model)
        tell_of_changes(initial, module.model)
    loggers = build_loggers(cfg, logger_options(start, RunDirectory(run_dir)))
    start_path = None if start is None else start.path
    del start, initial, weights  # and with them the mapped files
    callbacks = build_callbacks(cfg)
    saves = any(isinstance(callback, CheckpointOfLightning) for callback in callbacks)  # else it adds one of its own
    trainer = instantiate(cfg.trainer, callbacks=callbacks, logger=loggers, enable_checkpointing=saves)
    set_steps(trainer, cfg.global_batch_size, batch_size=cfg.data.batch_size)
    record_config(values, run_dir, loggers)
    record_tokenizer(data.tokenizer_file, run_dir)
    record_text(data.source.fingerprint(), data.domains, run_dir)
    log_start(module, trainer, data.sequence_length)
    with closing(loggers), report_out_of_memory():
        if start_path is None:
            trainer.validate(module, data, verbose=False)  # the curves start at the untrained model
        trainer.fit(module, data, ckpt_path=start_path)
        # Only if a run was stopped within its last validation, which Lightning would not repeat.
        if getattr(trainer.checkpoint_callback, "validation_is_due", False):
            trainer.validate(module, data, verbose=False)
    log_outputs(trainer, run_dir)
    if isinstance(trainer.checkpoint_callback, CheckpointCallback):
        trainer.checkpoint_callback.exit_on_pending_signal(trainer)


def tell_of_changes(initial: Checkpoint, model: MoETransformer) -> None:
    """Warn of what makes `model` another function of the weights that it starts from."""
    for key, (was, now) in initial.changes(model.config).items():
        log.warning("init_from: %s was %s, and is %s now", key, was, now)
    before, now = initial.locality.settings, model.locality.settings
    if before != now:
        log.warning("init_from: choices were limited by %s, and are by %s now", before or "nothing", now or "nothing")
    if SELECTION_BIAS in initial.shapes.keys() - model.state_dict().keys():
        log.warning("init_from: choices had the bias of balance=loss_free, and have none now")
