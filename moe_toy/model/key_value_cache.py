"""What is kept of the tokens that a model has seen, so that the next ones need not be computed with them again."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from moe_toy.locality.base import Steer
from moe_toy.model.causal_attention import causal_attention
from moe_toy.model.config import ModelConfig


class KeyValueCache:
    """Keys and values of one layer, with room for `max_len` tokens of each of `batch` sequences; and where choices are
    limited (`remember`), how experts ranked."""

    def __init__(self, config: ModelConfig, batch: int, max_len: int, like: Tensor) -> None:
        shape = 2, batch, config.num_kv_heads, max_len, config.head_size
        self.kept = torch.empty(shape, dtype=like.dtype, device=like.device)
        self.length = 0
        self.ranked: tuple[Tensor, Tensor] | None = None

    def remember(self, steer: Steer) -> Steer:
        """A limit as it is for tokens that follow those seen: it depends on how experts ranked at each of them."""

        def with_past(
            ranking: Float[Tensor, "batch seq expert"], scores: Float[Tensor, "batch seq expert"], top_k: int
        ) -> Float[Tensor, "batch seq expert"]:
            if self.ranked is not None:
                pairs = zip(self.ranked, (ranking, scores), strict=True)
                self.ranked = tuple(torch.cat(pair, dim=1) for pair in pairs)
            else:
                self.ranked = ranking, scores
            return steer(*self.ranked, top_k)[:, -ranking.shape[1] :]

        return with_past

    def attend(
        self,
        query: Float[Tensor, "batch head seq size"],
        key: Float[Tensor, "batch kv_head seq size"],
        value: Float[Tensor, "batch kv_head seq size"],
    ) -> Float[Tensor, "batch head seq size"]:
        """Add the keys and values of the next tokens, and attend from them to all so far."""
        past, seq = self.length, query.shape[2]
        self.length = past + seq
        self.kept[0, :, :, past : self.length] = key
        self.kept[1, :, :, past : self.length] = value
        if not past:
            return causal_attention(query, key, value)
        keys, values = self.kept[:, :, :, : self.length]
        # A single token sees everything; of several, each sees one less than the next.
        seen = None if seq == 1 else torch.ones(seq, self.length, dtype=torch.bool, device=query.device).tril(past)
        return F.scaled_dot_product_attention(
            query, keys, values, attn_mask=seen, enable_gqa=key.shape[1] != query.shape[1]
        )
