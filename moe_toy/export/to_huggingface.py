"""From a checkpoint of ours to a folder that transformers loads with its own classes."""

import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor

from moe_toy.balance.loss_free import LossFreeBias
from moe_toy.errors import UserError
from moe_toy.export.families import Family, exact_family
from moe_toy.export.folders import new_folder
from moe_toy.export.weights import to_theirs
from moe_toy.model.config import ModelConfig
from moe_toy.model.initial_values import without_memory
from moe_toy.model.transformer import MoETransformer
from moe_toy.runs.checkpoint import BALANCER, SELECTION_BIAS, Checkpoint

log = logging.getLogger(__name__)


def export(checkpoint: Path, out: Path) -> None:
    """Write weights, config and, if the run directory of `checkpoint` has one, the tokenizer.

    Raises `UserError` if no class of transformers computes exactly the same.
    """
    saved = Checkpoint.open(checkpoint, key="checkpoint")
    config, state = saved.model_config, saved.weights
    check_complete(saved, config)
    if limit := saved.locality.settings:
        raise UserError(
            f"locality={limit['scheme']} is part of {saved.path}, and no class of transformers limits the choice of "
            "experts so; evaluate it with evaluate.py"
        )
    bias = state.get(SELECTION_BIAS)
    family = exact_family(config, has_selection_bias=bias is not None and bool(bias.any()))
    tokenizer = saved.run.tokenizer
    with new_folder(out) as folder:
        eos_id = write_tokenizer(tokenizer, folder, config.max_seq_len) if tokenizer.is_file() else None
        write_model(state, config, family, folder, eos_id)
    log.info("%s: a %s model; load it with transformers.AutoModelForCausalLM.from_pretrained", out, family.model_type)
    if eos_id is None:
        log.info("without a tokenizer: there is no %s", tokenizer)


def check_complete(saved: Checkpoint, config: ModelConfig) -> None:
    """Raise `UserError` unless `saved` holds all of the model that `config` describes, its balancer's aside."""
    with without_memory():
        bias = LossFreeBias(rate=1.0, num_layers=len(config.moe_layers), num_experts=config.moe.num_experts)
        wanted = MoETransformer(config, bias).state_dict()
    exported = {
        name: tensor for name, tensor in saved.shapes.items() if name in wanted or not name.startswith(BALANCER)
    }
    without_bias = {SELECTION_BIAS: wanted[SELECTION_BIAS]}
    saved.check_shapes(without_bias | exported, wanted, "pass one that train.py wrote")


def write_model(
    state: dict[str, Tensor], config: ModelConfig, family: Family, folder: Path, eos_id: int | None
) -> None:
    """safetensors and config.json, as transformers itself lays them out."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging as their_logging

    their_logging.disable_progress_bar()
    fields = family.config_fields(config) | {"eos_token_id": eos_id, "dtype": "float32"}
    try:
        their_config = AutoConfig.for_model(family.model_type, **fields)
    except ValueError as error:  # a model type that it does not know
        raise UserError(
            f"this version of transformers has no {family.model_type}, the only class that is exact for this model; "
            "install a newer one"
        ) from error
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        model = AutoModelForCausalLM.from_config(their_config)
    model.load_state_dict(to_theirs(state, config, family), assign=True)
    model.save_pretrained(folder)


def write_tokenizer(file: Path, folder: Path, max_length: int) -> int:
    """tokenizer.json and its config, as AutoTokenizer reads them; returns the id that ends a text."""
    from transformers import PreTrainedTokenizerFast

    from moe_toy.data.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(file)
    eos = tokenizer.backend.id_to_token(tokenizer.eos_id)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend, eos_token=eos, model_max_length=max_length
    ).save_pretrained(folder)
    return tokenizer.eos_id
