"""Small configs that a test can change in one place."""

import pytest

from moe_toy.model.config import ModelConfig, MoEConfig

MOE = {
    "num_experts": 8,
    "top_k": 2,
    "num_shared_experts": 0,
    "num_leading_dense_layers": 0,
    "moe_layer_period": 1,
    "dense_ffn": "full",
    "router": "topk_then_softmax",
    "normalize_weights": True,
    "z_loss_coefficient": 0.0,
    "backend": "loop",
}
MODEL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_layers": 2,
    "num_heads": 2,
    "num_kv_heads": 1,
    "max_seq_len": 32,
    "ffn_budget": 64,
    "rope_base": 10000.0,
    "norm_eps": 1e-5,
    "init_std": 0.5,
    "activation_checkpointing": False,
    "compile": False,
}


@pytest.fixture
def make_config():
    """`make_config(num_layers=3, top_k=1)`: a tiny model config with some numbers changed."""

    def make(**changes) -> ModelConfig:
        moe = MoEConfig(**MOE | {key: value for key, value in changes.items() if key in MOE})
        return ModelConfig(**MODEL | {key: value for key, value in changes.items() if key in MODEL}, moe=moe)

    return make
