"""Causal grouped-query attention with per-head QK norm and rotary position embedding."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from moe_toy.model.causal_attention import causal_attention
from moe_toy.model.config import ModelConfig
from moe_toy.model.key_value_cache import KeyValueCache
from moe_toy.model.layers import RMSNorm


class Attention(nn.Module):
    """Each key/value head serves `num_heads / num_kv_heads` query heads. Projections have no biases."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = config.num_heads, config.num_kv_heads
        qkv_heads = config.num_heads + 2 * config.num_kv_heads
        self.qkv = nn.Linear(config.hidden_size, qkv_heads * config.head_size, bias=False)
        self.out = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.query_norm = RMSNorm(config.head_size, eps=config.norm_eps)
        self.key_norm = RMSNorm(config.head_size, eps=config.norm_eps)

    def forward(
        self,
        x: Float[Tensor, "batch seq hidden"],
        rotation: Float[Tensor, "2 seq half"],
        cache: KeyValueCache | None = None,
    ) -> Float[Tensor, "batch seq hidden"]:
        """With a `cache`, `x` are the tokens that follow those in it."""
        heads = rearrange(
            self.qkv(x),
            "batch seq (head size) -> batch head seq size",
            head=self.num_heads + 2 * self.num_kv_heads,
        )
        query, key, value = heads.split((self.num_heads, self.num_kv_heads, self.num_kv_heads), dim=1)
        query = rotate(self.query_norm(query), rotation)
        key = rotate(self.key_norm(key), rotation)
        mixed = causal_attention(query, key, value) if cache is None else cache.attend(query, key, value)
        return self.out(rearrange(mixed, "batch head seq size -> batch seq (head size)"))


def rotary_table(seq_len: int, head_size: int, base: float) -> Float[Tensor, "2 seq half"]:
    """Cosine and sine of position x frequency (Su et al. 2021, arXiv 2104.09864), on the default device. Reckoned
    on the CPU, since arithmetic on the meta device would load torch's compiler."""
    frequencies = base ** (-torch.arange(0, head_size, 2, dtype=torch.float64, device="cpu") / head_size)
    angles = torch.outer(torch.arange(seq_len, dtype=torch.float64, device="cpu"), frequencies)
    return torch.stack((angles.cos(), angles.sin())).float().to(torch.get_default_device())


def rotate(
    x: Float[Tensor, "batch head seq size"], rotation: Float[Tensor, "2 seq half"]
) -> Float[Tensor, "batch head seq size"]:
    """Rotate dimension i with dimension i + size / 2, as Llama and OLMoE checkpoints are laid out."""
    cos, sin = rotation  # fp32, also where x is bf16: positions need more than its three digits
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).type_as(x)
