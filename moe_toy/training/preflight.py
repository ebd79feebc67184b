"""What is wrong with the config of a run, found before anything is created for it."""

import os
import sys
from dataclasses import asdict
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from moe_toy.checks.constructors import check_constructors
from moe_toy.data.text_check import check_text_of
from moe_toy.errors import UserError
from moe_toy.model.compiled_blocks import hindrance_to_compiling
from moe_toy.model.expert_backends import ALIGNMENT, is_aligned
from moe_toy.model.initial_values import without_memory
from moe_toy.model.transformer import MoETransformer
from moe_toy.runs.checkpoint import AUTO, Checkpoint
from moe_toy.training.build import build_model
from moe_toy.training.config import DataConfig, OptimizerConfig, RunConfig, TrainerConfig
from moe_toy.training.devices import check_devices, runs_on_gpu
from moe_toy.training.memory import check_memory
from moe_toy.training.steps import check_interval, check_whole_steps, micro_batches_per_step


def check(cfg: DictConfig) -> None:
    """Find what is wrong with a config before anything is created or fetched for it."""
    values = OmegaConf.to_container(cfg, resolve=True)
    check_numbers(values)
    with without_memory():
        model = build_model(cfg)
    check_together(values, model)
    check_account(values)
    check_constructors({"data": {"source": values["data"]["source"]}})
    check_text_of(cfg.data)
    check_constructors(values)  # loads what it checks, and so Lightning: it comes after what is quick
    instantiate(cfg.data)


def prepare(cfg: DictConfig) -> None:
    """Assemble the text, train the tokenizer and tokenize, unless that is done: it may fail for want of a network."""
    instantiate(cfg.data).prepare_data()


def check_numbers(values: dict[str, Any]) -> None:
    """Each by itself, of the run, its trainer and its optimiser. Raises pydantic's error or a `UserError`."""
    RunConfig(**values)
    DataConfig(**values["data"])
    trainer = TrainerConfig(**values["trainer"])
    if values["check_devices"]:
        check_devices(values["trainer"])
    check_validations(trainer, values["data"]["validation_samples"])
    accumulated = micro_batches_per_step(
        values["global_batch_size"],
        batch_size=values["data"]["batch_size"],
        accumulate_grad_batches=values["trainer"]["accumulate_grad_batches"],
    )
    OptimizerConfig(**values["optimizer"]).check_trainer(
        gradient_clip_val=values["trainer"]["gradient_clip_val"], accumulate_grad_batches=accumulated
    )
    if values["global_batch_size"] is None or trainer.devices == trainer.num_nodes == 1:  # else the ranks decide
        check_whole_steps(trainer, accumulated)
    if trainer.max_steps > 0:  # else the text decides
        check_interval(trainer, trainer.max_steps, accumulated)


def check_validations(trainer: TrainerConfig, samples: int) -> None:
    """Refuse validations of a few batches: they come domain by domain, so these would leave domains out."""
    if trainer.num_sanity_val_steps:
        raise UserError(
            f"trainer.num_sanity_val_steps={trainer.num_sanity_val_steps}: a run validates the untrained model first, "
            "as a whole; leave it at 0"
        )
    limit = trainer.limit_val_batches
    if limit is None or limit == 0 or (isinstance(limit, float) and limit == 1):
        return
    some = max(1, int(limit * samples)) if isinstance(limit, float) else 1
    raise UserError(
        f"trainer.limit_val_batches={limit} would validate the first domains only; use data.validation_samples={some}, "
        f"as many blocks of every domain (given {samples}), or trainer.limit_val_batches=0 to validate nothing"
    )


def check_together(values: dict[str, Any], model: MoETransformer) -> None:
    """Text, trainer and checkpoints against the model. Raises a `UserError`."""
    for key in ("sequence_length", "validation_length"):
        if values["data"][key] > model.config.max_seq_len:
            raise UserError(
                f"data.{key} ({values['data'][key]}) exceeds model.max_seq_len ({model.config.max_seq_len}); "
                f"lower data.{key} or raise model.max_seq_len"
            )
    check_places(values)
    device_type = "cuda" if runs_on_gpu(values["trainer"]["accelerator"]) else "cpu"
    hindrance = hindrance_to_compiling(model, device_type, str(values["trainer"]["precision"]))
    if model.config.compile is True and hindrance is not None:
        raise UserError(f"model.compile=true: {hindrance}; use model.compile=auto or trainer.precision=bf16-mixed")
    check_backend(model, str(values["trainer"]["precision"]))
    if model.balancer.looks_ahead and values["trainer"]["overfit_batches"]:
        raise UserError(
            "trainer.overfit_batches repeats batches, which balance.estimate=exact cannot look ahead to; "
            "use balance.estimate=prefix"
        )
    ckpt_path, init_from = values["ckpt_path"], values["init_from"]
    if ckpt_path is not None and values["trainer"]["overfit_batches"]:
        raise UserError(
            f"ckpt_path={ckpt_path}: a run with trainer.overfit_batches would go on at the first of its batches, not "
            "where it stopped; start anew with ckpt_path=null, or from weights with init_from"
        )
    if ckpt_path not in (None, AUTO):
        if init_from is not None:
            raise UserError("init_from and ckpt_path contradict each other: start anew from weights or continue a run")
        start = Checkpoint.open_to_continue(ckpt_path)
        start.check_continues(model, model.locality.settings, asdict(OptimizerConfig(**values["optimizer"])))
        strategy = values["trainer"]["strategy"]
        if start.is_sharded and isinstance(strategy, str):
            raise UserError(
                f"ckpt_path: {start.path} is a folder of shards, which trainer.strategy={strategy} cannot continue; "
                "use trainer=fsdp, or python -m lightning.pytorch.utilities.consolidate_checkpoint"
            )
    if init_from is not None:
        Checkpoint.open(init_from, "init_from").check_weights_fit(model)
    if values["check_memory"]:
        check_memory(values, model)


def check_backend(model: MoETransformer, precision: str) -> None:
    """Refuse grouped products of matrices that have none."""
    kinds = {"bf16": torch.bfloat16, "16": torch.float16, "64": torch.float64}
    dtype = next((kind for name, kind in kinds.items() if precision.startswith(name)), torch.float32)
    widths = model.config.hidden_size, model.config.expert_hidden_size
    if model.config.moe.backend == "grouped" and not is_aligned(dtype, widths):
        raise UserError(
            f"moe.backend=grouped: no such product in {dtype} of experts of {widths[0]} x {widths[1]}, rows of which "
            f"must be multiples of {ALIGNMENT} bytes, in fp32 at most; use moe.backend=auto"
        )


def check_places(values: dict[str, Any]) -> None:
    """Refuse a trainer that keeps a run elsewhere than in its directory, or deals its samples in another order."""
    place = values["trainer"].get("default_root_dir")
    if place != values["run_dir"]:
        raise UserError(
            f"trainer.default_root_dir={place}: checkpoints lie in the run directory, where ckpt_path=auto looks for "
            f"them; leave it at {values['run_dir']}, which hydra.run.dir= changes"
        )
    if values["trainer"].get("use_distributed_sampler") is not False:
        raise UserError(
            "trainer.use_distributed_sampler must be false: the data module deals samples to ranks itself, and "
            "Lightning would deal others; leave it"
        )


def check_account(values: dict[str, Any]) -> None:
    """Refuse curves online where nobody is logged in to W&B and nobody can be asked. Raises a `UserError`."""
    for name, entry in values["logger"].items():
        is_wandb = entry is not None and str(entry.get("_target_")).endswith((".WandbRun", ".WandbLogger"))
        if not is_wandb or values["trainer"].get("fast_dev_run"):
            continue
        mode = os.environ.get("WANDB_MODE") or ("offline" if entry.get("offline") else "online")
        if mode == "online" and not sys.stdin.isatty() and not is_logged_in():
            raise UserError(
                f"logger.{name}: its curves go online, but nobody is logged in to W&B and no terminal is there to ask; "
                f"run `wandb login`, set WANDB_API_KEY, or keep them here with logger.{name}.offline=true"
            )


def is_logged_in() -> bool:
    import wandb  # a second

    return bool(os.environ.get("WANDB_API_KEY")) or wandb.login(prompt=False)
