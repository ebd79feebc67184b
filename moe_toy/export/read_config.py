"""From a config of transformers to ours, refusing what ours cannot say."""

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from moe_toy.errors import UserError
from moe_toy.export.families import EXAONE_MOE, Family
from moe_toy.model.config import ModelConfig, MoEConfig

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

WITHOUT_EFFECT = {"initializer_range", "bos_token_id", "eos_token_id", "pad_token_id"}
PLACEMENT = {"mlp_only_layers", "decoder_sparse_step"}  # two ways to say the same; `_placement` is strict


def read_config(theirs: "PreTrainedConfig", family: Family) -> ModelConfig:
    """Our config of the same model. What it computes is the same exactly if our export gives the fields back."""
    try:
        config = _translate(theirs, family)
    except (ValidationError, ZeroDivisionError, TypeError, LookupError, AttributeError) as error:
        raise UserError(f"folder: its config describes no model of ours ({' '.join(str(error).split())})") from error
    for name, value in family.config_fields(config).items():
        if name == "intermediate_size" and len(config.moe_layers) == config.num_layers:
            continue  # there is no dense layer
        if name not in WITHOUT_EFFECT | PLACEMENT and getattr(theirs, name) != value:
            raise UserError(
                f"folder: {name} is {getattr(theirs, name)} in its config.json; ours could only have {value}"
            )
    for name in ("attention_bias", "use_sliding_window"):
        if getattr(theirs, name, False):
            raise UserError(f"folder: {name} is {getattr(theirs, name)} in its config.json; models of ours have none")
    return config


def _translate(theirs: "PreTrainedConfig", family: Family) -> ModelConfig:
    shared = _shared_width(theirs) // theirs.moe_intermediate_size
    dense = [layer for layer in range(theirs.num_hidden_layers) if layer not in _moe_layers(theirs)]
    softmax = "topk_then_softmax" if theirs.norm_topk_prob else "softmax_then_topk"
    budget = theirs.moe_intermediate_size * (theirs.num_experts + shared)
    placement = _placement(_moe_layers(theirs), theirs.num_hidden_layers)
    return ModelConfig(
        vocab_size=theirs.vocab_size,
        hidden_size=theirs.hidden_size,
        num_layers=theirs.num_hidden_layers,
        num_heads=theirs.num_attention_heads,
        num_kv_heads=theirs.num_key_value_heads,
        max_seq_len=theirs.max_position_embeddings,
        ffn_budget=budget,
        rope_base=float(theirs.rope_parameters["rope_theta"]),
        norm_eps=theirs.rms_norm_eps,
        init_std=theirs.initializer_range,
        activation_checkpointing=False,
        compile="auto",
        moe=MoEConfig(
            num_experts=theirs.num_experts,
            top_k=theirs.num_experts_per_tok,
            num_shared_experts=shared,
            dense_ffn="slim" if dense and theirs.intermediate_size != budget else "full",
            router="sigmoid" if family is EXAONE_MOE else softmax,
            normalize_weights=theirs.norm_topk_prob,
            z_loss_coefficient=0.0,
            backend="auto",
            **placement,
        ),
    )


def _shared_width(theirs: "PreTrainedConfig") -> int:
    if hasattr(theirs, "num_shared_experts"):
        return theirs.num_shared_experts * theirs.moe_intermediate_size
    return getattr(theirs, "shared_expert_intermediate_size", 0)


def _moe_layers(theirs: "PreTrainedConfig") -> tuple[int, ...]:
    layers = range(theirs.num_hidden_layers)
    if hasattr(theirs, "mlp_layer_types"):
        return tuple(layer for layer in layers if theirs.mlp_layer_types[layer] == "sparse")
    if hasattr(theirs, "mlp_only_layers"):
        step = theirs.decoder_sparse_step
        return tuple(layer for layer in layers if layer not in theirs.mlp_only_layers and (layer + 1) % step == 0)
    return tuple(layers)


def _placement(moe_layers: tuple[int, ...], num_layers: int) -> dict[str, Any]:
    for period in range(1, num_layers + 1):
        for leading in range(num_layers):
            if moe_layers == tuple(layer for layer in range(leading, num_layers) if (layer + 1) % period == 0):
                return {"num_leading_dense_layers": leading, "moe_layer_period": period}
    raise UserError(
        f"folder: its MoE layers are {list(moe_layers)} of {num_layers}; ours are every n-th after the first few"
    )
