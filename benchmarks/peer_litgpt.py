"""Another peer of benchmarks/train_step.py: litgpt's GPT of the same shape, where litgpt is installed.

Its model file needs nothing that we do not install: `pip install --no-deps --target DIR litgpt`, and DIR in PYTHONPATH.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from moe_toy.model.config import ModelConfig


def build(config: ModelConfig) -> nn.Module:
    """With QK norm per head, as ours; mixing weights are the softmax over the chosen logits, it knows no other."""
    from litgpt.config import Config
    from litgpt.model import GPT

    return GPT(
        Config(
            block_size=config.max_seq_len,
            vocab_size=config.vocab_size,
            padded_vocab_size=config.vocab_size,
            n_layer=config.num_layers,
            n_embd=config.hidden_size,
            n_head=config.num_heads,
            head_size=config.head_size,
            n_query_groups=config.num_kv_heads,
            rotary_percentage=1.0,
            rope_base=int(config.rope_base),
            parallel_residual=False,
            bias=False,
            norm_class_name="RMSNorm",
            norm_eps=config.norm_eps,
            norm_qk=True,
            mlp_class_name="LLaMAMoE",
            intermediate_size=config.expert_hidden_size,
            moe_intermediate_size=config.expert_hidden_size,
            n_expert=config.moe.num_experts,
            n_expert_per_token=config.moe.top_k,
        )
    ).train()


def loss(model: nn.Module, token_ids: Tensor) -> Tensor:
    logits = model(token_ids)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), token_ids[:, 1:].flatten())
