"""Which class of transformers computes exactly what a model of ours computes, and under which config.

A family is here because it has all of: QK norm per head, rotary embedding in Llama's layout, the routers it claims, and
shared experts without a gate. docs/export.md tells which were looked at and why they are not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moe_toy.errors import UserError
from moe_toy.model.config import ModelConfig


@dataclass(frozen=True)
class Family:
    """A model type of transformers."""

    model_type: str
    shared_expert: str | None
    """What its MoE block calls the shared expert, if it has one."""
    selection_bias: str | None
    """What its MoE block calls a bias on the choice of experts, if it has one."""
    own_fields: Callable[[ModelConfig], dict[str, Any]]
    """The config fields that other families lack or call otherwise."""

    def config_fields(self, config: ModelConfig) -> dict[str, Any]:
        """Keyword arguments of the family's config class."""
        return {
            "vocab_size": config.vocab_size,
            "hidden_size": config.hidden_size,
            "num_hidden_layers": config.num_layers,
            "num_attention_heads": config.num_heads,
            "num_key_value_heads": config.num_kv_heads,
            "head_dim": config.head_size,
            "max_position_embeddings": config.max_seq_len,
            "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
            "rms_norm_eps": config.norm_eps,
            "initializer_range": config.init_std,
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            "num_experts": config.moe.num_experts,
            "num_experts_per_tok": config.moe.top_k,
            "norm_topk_prob": config.moe.normalize_weights,
            "moe_intermediate_size": config.expert_hidden_size,
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
            **self.own_fields(config),
        }


def _dense_by_index(config: ModelConfig) -> dict[str, Any]:
    dense = [layer for layer in range(config.num_layers) if layer not in config.moe_layers]
    return {"mlp_only_layers": dense, "decoder_sparse_step": 1, "intermediate_size": config.dense_hidden_size}


def _dense_by_type(config: ModelConfig) -> dict[str, Any]:
    return {
        "mlp_layer_types": ["sparse" if layer in config.moe_layers else "dense" for layer in range(config.num_layers)],
        "intermediate_size": config.dense_hidden_size,
        "num_shared_experts": config.moe.num_shared_experts,
        "routed_scaling_factor": 1.0,
        "n_group": 1,
        "topk_group": 1,
        **_window_of_everything(config),
    }


def _window_of_everything(config: ModelConfig) -> dict[str, Any]:
    """Where only layers with a sliding window have rotary embeddings: the window is as long as a sequence can be."""
    return {"layer_types": ["sliding_attention"] * config.num_layers, "sliding_window": config.max_seq_len}


def _one_shared_mlp(config: ModelConfig) -> dict[str, Any]:
    width = config.moe.num_shared_experts * config.expert_hidden_size
    return {"shared_expert_intermediate_size": width, **_window_of_everything(config)}


QWEN3_MOE = Family("qwen3_moe", shared_expert=None, selection_bias=None, own_fields=_dense_by_index)
LARA_MINI = Family("lara_mini", shared_expert="shared_expert", selection_bias=None, own_fields=_one_shared_mlp)
EXAONE_MOE = Family(
    "exaone_moe",
    shared_expert="shared_experts",
    selection_bias="gate.e_score_correction_bias",
    own_fields=_dense_by_type,
)
FAMILIES = {family.model_type: family for family in (QWEN3_MOE, LARA_MINI, EXAONE_MOE)}


def exact_family(config: ModelConfig, *, has_selection_bias: bool) -> Family:
    """The family that is exact for `config`; raises `UserError` if transformers has none."""
    if config.moe.router == "sigmoid":
        return EXAONE_MOE
    if has_selection_bias:
        raise UserError(
            f"balance=loss_free with moe.router={config.moe.router}: no class of transformers adds a selection bias to "
            "softmax scores and has QK norm per head; only moe.router=sigmoid can be exported with such a bias"
        )
    if not config.moe.num_shared_experts:
        return QWEN3_MOE
    if len(config.moe_layers) < config.num_layers:
        raise UserError(
            f"moe.num_shared_experts ({config.moe.num_shared_experts}) beside dense layers: no class of transformers "
            f"has both with moe.router={config.moe.router}; only models without one of them, or with "
            "moe.router=sigmoid, can be exported"
        )
    return LARA_MINI
