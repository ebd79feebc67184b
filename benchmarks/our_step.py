"""Our side of benchmarks/train_step.py: the same model as the peer's, but for QK norm per head."""

from step_shape import StepShape
from torch import Tensor, nn

from moe_toy.balance.base import LoadBalancer
from moe_toy.model.config import ModelConfig, MoEConfig
from moe_toy.model.transformer import MoETransformer


def build(shape: StepShape) -> MoETransformer:
    moe = MoEConfig(
        num_experts=shape.num_experts,
        top_k=shape.top_k,
        num_shared_experts=0,
        num_leading_dense_layers=0,
        moe_layer_period=1,
        dense_ffn="full",
        router="softmax_then_topk",
        normalize_weights=False,
        z_loss_coefficient=0.0,
        backend="auto",
    )
    config = ModelConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        num_layers=shape.num_layers,
        num_heads=shape.num_heads,
        num_kv_heads=shape.num_kv_heads,
        max_seq_len=shape.sequence_length,
        ffn_budget=shape.ffn_budget,
        rope_base=10000.0,
        norm_eps=1e-5,
        init_std=0.02,
        activation_checkpointing=False,
        moe=moe,
    )
    balancer = LoadBalancer(num_layers=shape.num_layers, num_experts=shape.num_experts)
    return MoETransformer(config, balancer).train()


def loss(model: nn.Module, token_ids: Tensor) -> Tensor:
    output = model(token_ids, only_loss=True)
    return output.loss + output.aux_loss
