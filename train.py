"""Train a Mixture-of-Experts language model and watch where its tokens go: `python train.py --help`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from moe_toy.command_line.entry import run_checked, told_in_one_line
from moe_toy.sweep.run_arm import run_arm

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.loggers import Logger

    from moe_toy.model.transformer import MoETransformer

# Heavy imports stay inside functions, so that --help answers at once.
CONF = Path(__file__).parent / "conf"
PLACE = {"run_dir": "not yet known", "name": "not yet known"}  # before a run has a directory


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def main(cfg: DictConfig) -> None:
    if cfg.sweep_name is None:
        run(cfg)
    else:
        cfg.ckpt_path = "auto"
        run_arm(Path(cfg.run_dir), lambda: run(cfg))


def run(cfg: DictConfig) -> None:
    import torch
    from lightning.pytorch import seed_everything

    from moe_toy.runs.resume import alone_in, starting_point
    from moe_toy.training.allocator import keep_freed_memory
    from moe_toy.training.session import quieten

    quieten()
    keep_freed_memory()
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    seed_everything(cfg.seed, workers=True, verbose=False)
    with told_in_one_line(), alone_in(Path(cfg.run_dir)):
        train(cfg, starting_point(cfg.ckpt_path, Path(cfg.run_dir)))


def train(cfg: DictConfig, start: Path | None) -> None:
    """From the checkpoint `start`, or anew, to the last step."""
    from moe_toy.runs.checkpoint import check_continues, load_weights
    from moe_toy.runs.resume import logger_options
    from moe_toy.training.accumulation import accumulated_batches
    from moe_toy.training.checkpoint_callback import CheckpointCallback
    from moe_toy.training.config import OptimizerConfig
    from moe_toy.training.lit_moe import LitMoE
    from moe_toy.training.session import check_tokenizer, closing, greet, record_config, record_tokenizer, say_goodbye

    run_dir = Path(cfg.run_dir)
    data = instantiate(cfg.data)
    module = LitMoE(build_model(cfg), OptimizerConfig(**cfg.optimizer))
    if weights := start or cfg.init_from:
        check_tokenizer(data.tokenizer_file, Path(weights))
    if start is not None:
        check_continues(start, module.model, asdict(module.optimizer_config))
    elif cfg.init_from is not None:
        load_weights(Path(cfg.init_from), module.model)
    loggers = build_loggers(cfg, logger_options(start, run_dir))
    trainer = instantiate(cfg.trainer, callbacks=build_callbacks(cfg), logger=loggers)
    if cfg.global_batch_size is not None:
        trainer.accumulate_grad_batches = accumulated_batches(
            cfg.global_batch_size, batch_size=cfg.data.batch_size, num_ranks=trainer.world_size
        )
    record_config(OmegaConf.to_container(cfg, resolve=True), run_dir, loggers)
    record_tokenizer(data.tokenizer_file, run_dir)
    greet(module)
    with closing(loggers):
        if start is None:
            trainer.validate(module, data, verbose=False)  # the curves start at the untrained model
        trainer.fit(module, data, ckpt_path=start)
        # Only if a run was stopped within its last validation, which Lightning would not repeat.
        if getattr(trainer.checkpoint_callback, "validation_is_due", False):
            trainer.validate(module, data, verbose=False)
    say_goodbye(trainer, run_dir)
    if isinstance(trainer.checkpoint_callback, CheckpointCallback):
        trainer.checkpoint_callback.obey_late_signal(trainer)


def check(cfg: DictConfig) -> None:
    """Find what is wrong with a config before anything is created or fetched for it."""
    import torch

    from moe_toy.command_line.constructor_check import check_constructors
    from moe_toy.training.preflight import check_numbers, check_together

    values = OmegaConf.to_container(OmegaConf.merge(cfg, PLACE), resolve=True)
    check_numbers(values)
    with torch.device("meta"):
        model = build_model(cfg)
    check_constructors(values)  # this one loads what it checks, so it comes after what is quick
    check_together(values, model)
    instantiate(cfg.data).check()


def prepare(cfg: DictConfig) -> None:
    """Assemble the text, train the tokenizer and tokenize, unless that is done: it may fail for want of a network."""
    instantiate(cfg.data).prepare_data()


def build_callbacks(cfg: DictConfig) -> "list[Callback]":
    from lightning.pytorch.callbacks import ProgressBar

    callbacks = instantiate(cfg.callbacks).values()
    # Lightning refuses a progress bar together with enable_progress_bar=false.
    return [c for c in callbacks if cfg.trainer.enable_progress_bar or not isinstance(c, ProgressBar)]


def build_loggers(cfg: DictConfig, options: dict[str, dict[str, Any]]) -> "list[Logger]":
    """`options` complete the configs of loggers by name."""
    known = {name: options[name] for name in cfg.logger if name in options}
    return list(instantiate(cfg.logger, **known).values())


def build_model(cfg: DictConfig) -> "MoETransformer":
    from moe_toy.model.config import ModelConfig, MoEConfig
    from moe_toy.model.transformer import MoETransformer

    config = ModelConfig(**{**cfg.model, "moe": MoEConfig(**cfg.moe)})
    balancer = instantiate(cfg.balance, num_layers=len(config.moe_layers), num_experts=config.moe.num_experts)
    return MoETransformer(config, balancer, instantiate(cfg.locality))


if __name__ == "__main__":
    run_checked(main, (check, prepare), CONF, "train")
