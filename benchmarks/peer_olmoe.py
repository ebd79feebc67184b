"""The peer of benchmarks/train_step.py: transformers' OlmoeForCausalLM of the same shape."""

from step_shape import StepShape
from torch import Tensor, nn


def build(shape: StepShape, experts: str) -> nn.Module:
    """`experts` is the library's implementation of the experts: grouped_mm (its default), eager or batched_mm."""
    from transformers import OlmoeConfig, OlmoeForCausalLM

    config = OlmoeConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.ffn_budget // shape.num_experts,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        num_experts=shape.num_experts,
        num_experts_per_tok=shape.top_k,
        max_position_embeddings=shape.sequence_length,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        norm_topk_prob=False,
        tie_word_embeddings=False,
        output_router_logits=False,  # no balance loss
        use_cache=False,
        pad_token_id=None,
        eos_token_id=None,
    )
    config._attn_implementation = "sdpa"
    config._experts_implementation = experts
    return OlmoeForCausalLM(config).train()


def loss(model: nn.Module, token_ids: Tensor) -> Tensor:
    return model(input_ids=token_ids, labels=token_ids).loss
