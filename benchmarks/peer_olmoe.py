"""The peer of benchmarks/train_step.py: transformers' OlmoeForCausalLM of the same shape."""

from torch import Tensor, nn

from moe_toy.model.config import ModelConfig


def build(config: ModelConfig, experts: str) -> nn.Module:
    """`experts` is the library's implementation of the experts: grouped_mm (its default), eager or batched_mm."""
    from transformers import OlmoeConfig, OlmoeForCausalLM

    olmoe = OlmoeConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.expert_hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        num_experts=config.moe.num_experts,
        num_experts_per_tok=config.moe.top_k,
        max_position_embeddings=config.max_seq_len,
        rms_norm_eps=config.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_base},
        norm_topk_prob=config.moe.normalize_weights,
        tie_word_embeddings=False,
        output_router_logits=False,  # no balance loss
        use_cache=False,
        pad_token_id=None,
        eos_token_id=None,
    )
    olmoe._attn_implementation = "sdpa"
    olmoe._experts_implementation = experts
    return OlmoeForCausalLM(olmoe).train()


def loss(model: nn.Module, token_ids: Tensor) -> Tensor:
    return model(input_ids=token_ids, labels=token_ids).loss
