"""`python -m moe_toy.export.from_huggingface folder=... out=...`: a Hugging Face folder as a run directory of ours.

It gets checkpoints/last.ckpt and, if the folder has one, tokenizer.json: what evaluation and `train.py init_from=...`
need.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from moe_toy.errors import UserError
from moe_toy.export.arguments import run

if TYPE_CHECKING:
    from torch import Tensor

    from moe_toy.export.families import Family
    from moe_toy.model.config import ModelConfig
    from moe_toy.model.transformer import MoETransformer

log = logging.getLogger(__name__)
TRAINING_ONLY = {"z_loss_coefficient", "backend", "init_std", "activation_checkpointing", "compile"}
REASON = 200
"""Characters of what transformers says, which can be pages."""


def main(folder: Path, out: Path) -> None:
    import torch

    from moe_toy.export.folders import new_folder
    from moe_toy.runs.checkpoint import PREFIX
    from moe_toy.runs.run_directory import TOKENIZER, RunDirectory

    config, family = load_config(folder)
    state = load_state(folder, config, family)
    with new_folder(out) as folder_of_run:
        run_dir = RunDirectory(folder_of_run)
        run_dir.checkpoints.mkdir()
        checkpoint = {
            "hyper_parameters": {"model": asdict(config)},
            "state_dict": {PREFIX + name: tensor for name, tensor in state.items()},
        }
        torch.save(checkpoint, run_dir.last)
        overrides = [f"init_from={out}", *model_overrides(config)]
        if (folder / TOKENIZER).is_file():
            shutil.copyfile(folder / TOKENIZER, run_dir.tokenizer)
            overrides.append(f"data.tokenizer={RunDirectory(out).tokenizer}")
    log.info("%s: to fine-tune it, python train.py %s", out, " ".join(overrides))


def load_model(folder: Path) -> "MoETransformer":
    """The model in a folder, as one of ours, in fp32."""
    from moe_toy.balance.base import LoadBalancer
    from moe_toy.balance.loss_free import LossFreeBias
    from moe_toy.model.transformer import MoETransformer
    from moe_toy.runs.checkpoint import SELECTION_BIAS

    config, family = load_config(folder)
    state = load_state(folder, config, family)
    sizes = {"num_layers": len(config.moe_layers), "num_experts": config.moe.num_experts}
    balancer = LossFreeBias(rate=1.0, **sizes) if SELECTION_BIAS in state else LoadBalancer(**sizes)
    model = MoETransformer(config, balancer)
    model.load_state_dict(state)
    return model


def load_config(folder: Path) -> "tuple[ModelConfig, Family]":
    """Our config of the model in a folder. Raises `UserError` where it is none of ours."""
    from transformers import AutoConfig

    from moe_toy.export.families import FAMILIES
    from moe_toy.export.read_config import read_config

    if not (folder / "config.json").is_file():
        raise UserError(f"folder: there is no config.json in {folder}; give the folder of a Hugging Face model")
    with report_unreadable(folder):
        theirs = AutoConfig.from_pretrained(folder)
    if theirs.model_type not in FAMILIES:
        raise UserError(f"folder: {folder} is a {theirs.model_type}; it must be one of {', '.join(FAMILIES)}")
    family = FAMILIES[theirs.model_type]
    return read_config(theirs, family), family


def load_state(folder: Path, config: "ModelConfig", family: "Family") -> dict[str, "Tensor"]:
    """All tensors of ours, in fp32; nothing is executed and nothing fetched."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as their_logging

    from moe_toy.export.weights import to_ours

    their_logging.disable_progress_bar()
    with report_unreadable(folder):
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    if absent := sorted(loading["missing_keys"]):  # transformers would start them at random
        raise UserError(f"folder: {folder} lacks {len(absent)} tensors, such as {absent[0]}; is it whole?")
    return to_ours(model.state_dict(), config, family)


@contextmanager
def report_unreadable(folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # transformers, safetensors and torch each raise their own kinds
        reason = shorten(str(error), REASON) or type(error).__name__
        raise UserError(f"folder: {folder} cannot be loaded ({reason}); is it whole?") from error


def model_overrides(config: "ModelConfig") -> Iterator[str]:
    """What to pass to train.py for this model."""
    values: dict[str, Any] = asdict(config)
    groups = {"moe": values.pop("moe"), "data": {"vocab_size": values.pop("vocab_size")}, "model": values}
    for group, numbers in groups.items():
        yield from (f"{group}.{key}={value}" for key, value in numbers.items() if key not in TRAINING_ONLY)


if __name__ == "__main__":
    run(
        main,
        "moe_toy.export.from_huggingface",
        "Write the model in a Hugging Face folder as a run directory, to evaluate or fine-tune it.",
        {
            "folder": "a Hugging Face folder of one of the classes that moe_toy.export writes",
            "out": "the run directory to write; it must not exist",
        },
    )
