"""Which tensor of ours is which tensors of a Hugging Face model, read in both directions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from moe_toy.export.families import Family
from moe_toy.model.config import ModelConfig
from moe_toy.runs.checkpoint import SELECTION_BIAS


@dataclass(frozen=True)
class Pair:
    """One tensor of ours and what it is split into, row by row, in theirs."""

    ours: str
    theirs: tuple[str, ...]
    rows: tuple[int, ...] = ()
    """Rows of each part, where there are several."""
    transposed: bool = False
    """Ours is (expert, input, output), theirs (expert, output, input)."""


def pairs(config: ModelConfig, family: Family) -> Iterator[Pair]:
    """All parameters of the model; the selection bias, one row per MoE layer, is not among them."""
    yield Pair("embedding.weight", ("model.embed_tokens.weight",))
    for layer in range(config.num_layers):
        ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
        yield Pair(f"{ours}.attention_norm.weight", (f"{theirs}.input_layernorm.weight",))
        yield from _attention(f"{ours}.attention", f"{theirs}.self_attn", config)
        yield Pair(f"{ours}.ffn_norm.weight", (f"{theirs}.post_attention_layernorm.weight",))
        if layer in config.moe_layers:
            yield from _experts(f"{ours}.ffn", f"{theirs}.mlp", config, family)
        else:
            yield from _swiglu(f"{ours}.ffn", f"{theirs}.mlp", config.dense_hidden_size)
    yield Pair("norm.weight", ("model.norm.weight",))
    yield Pair("unembedding.weight", ("lm_head.weight",))


def to_theirs(state: Mapping[str, Tensor], config: ModelConfig, family: Family) -> dict[str, Tensor]:
    """The state of a Hugging Face model of `family` with the weights of `state`, ours."""
    result = {}
    for pair in pairs(config, family):
        tensor = state[pair.ours]
        parts = tensor.split(pair.rows) if pair.rows else (tensor.mT if pair.transposed else tensor,)
        result |= {name: part.contiguous() for name, part in zip(pair.theirs, parts, strict=True)}
    if family.selection_bias is not None:
        bias = state.get(SELECTION_BIAS, torch.zeros(len(config.moe_layers), config.moe.num_experts))
        result |= {name: row.clone() for name, row in zip(_bias_names(config, family), bias, strict=True)}
        if not config.moe.num_shared_experts:
            result |= _no_shared_expert(config, family)
    return result


def to_ours(state: Mapping[str, Tensor], config: ModelConfig, family: Family) -> dict[str, Tensor]:
    """The state of a model of ours with the weights of `state`, theirs; a selection bias only if it is not zero."""
    result = {}
    for pair in pairs(config, family):
        tensor = torch.cat([state[name] for name in pair.theirs])
        result[pair.ours] = tensor.mT.contiguous() if pair.transposed else tensor
    if family.selection_bias is not None:
        bias = torch.stack([state[name] for name in _bias_names(config, family)])
        if bias.any():
            result[SELECTION_BIAS] = bias
    return result


def _attention(ours: str, theirs: str, config: ModelConfig) -> Iterator[Pair]:
    query_rows, key_rows = config.num_heads * config.head_size, config.num_kv_heads * config.head_size
    yield Pair(
        f"{ours}.qkv.weight",
        tuple(f"{theirs}.{name}_proj.weight" for name in "qkv"),
        rows=(query_rows, key_rows, key_rows),
    )
    yield Pair(f"{ours}.out.weight", (f"{theirs}.o_proj.weight",))
    yield Pair(f"{ours}.query_norm.weight", (f"{theirs}.q_norm.weight",))
    yield Pair(f"{ours}.key_norm.weight", (f"{theirs}.k_norm.weight",))


def _swiglu(ours: str, theirs: str, width: int) -> Iterator[Pair]:
    gate_and_up = (f"{theirs}.gate_proj.weight", f"{theirs}.up_proj.weight")
    yield Pair(f"{ours}.gate_up.weight", gate_and_up, rows=(width, width))
    yield Pair(f"{ours}.down.weight", (f"{theirs}.down_proj.weight",))


def _experts(ours: str, theirs: str, config: ModelConfig, family: Family) -> Iterator[Pair]:
    yield Pair(f"{ours}.router.weight", (f"{theirs}.gate.weight",))
    yield Pair(f"{ours}.experts.gate_up", (f"{theirs}.experts.gate_up_proj",), transposed=True)
    yield Pair(f"{ours}.experts.down", (f"{theirs}.experts.down_proj",), transposed=True)
    if config.moe.num_shared_experts:
        width = config.moe.num_shared_experts * config.expert_hidden_size
        yield from _swiglu(f"{ours}.shared_expert", f"{theirs}.{family.shared_expert}", width)


def _bias_names(config: ModelConfig, family: Family) -> list[str]:
    return [f"model.layers.{layer}.mlp.{family.selection_bias}" for layer in config.moe_layers]


def _no_shared_expert(config: ModelConfig, family: Family) -> dict[str, Tensor]:
    """Matrices of width zero, where a family cannot do without a shared expert."""
    state = {}
    for layer in config.moe_layers:
        for pair in _swiglu("", f"model.layers.{layer}.mlp.{family.shared_expert}", 0):
            shape = (config.hidden_size, 0) if len(pair.theirs) == 1 else (0, config.hidden_size)
            state |= {name: torch.zeros(shape) for name in pair.theirs}
    return state
