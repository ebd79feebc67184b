"""Causal attention, two ways: PyTorch's, and one that is faster on a CPU. Both give equal values and gradients."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from moe_toy.model.own_gradients import takes_own_gradient

BLOCK = 128
"""Queries that are computed together: their scores stay in the cache."""
LONGEST = 1024
"""Sequences beyond this leave too many probabilities for the backward pass, which PyTorch's way computes again."""


def causal_attention(
    query: Float[Tensor, "batch head seq size"],
    key: Float[Tensor, "batch kv_head seq size"],
    value: Float[Tensor, "batch kv_head seq size"],
) -> Float[Tensor, "batch head seq size"]:
    """Each key/value head serves as many query heads as there are more of those."""
    if query.device.type == "cpu" and query.shape[2] <= LONGEST:
        autocast = torch.is_autocast_enabled("cpu")  # it would take products of fp32 in bf16 here, and none backward
        if takes_own_gradient(query) and (not autocast or query.dtype == torch.get_autocast_dtype("cpu")):
            return OwnBlockedAttention.apply(query, key, value)
        return blocked_attention(query, key, value)
    return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=key.shape[1] != query.shape[1])


def blocked_attention(
    query: Float[Tensor, "batch head seq size"],
    key: Float[Tensor, "batch kv_head seq size"],
    value: Float[Tensor, "batch kv_head seq size"],
) -> Float[Tensor, "batch head seq size"]:
    """Block after block of queries, each with no more keys than it may see; query heads that share keys go together."""
    group, seq = query.shape[1] // key.shape[1], query.shape[2]
    query = (query / math.sqrt(query.shape[-1])).unflatten(1, (-1, group))  # batch kv_head group seq size
    later = torch.ones(BLOCK, BLOCK, dtype=torch.bool, device=query.device).triu(1)
    blocks = []
    for start in range(0, seq, BLOCK):
        end = min(start + BLOCK, seq)
        rows = query[:, :, :, start:end].flatten(2, 3)
        scores = (rows @ key[:, :, :end].mT).unflatten(2, (group, -1))
        scores[..., start:].masked_fill_(later[: end - start, : end - start], -torch.inf)
        mixed = scores.softmax(-1).flatten(2, 3) @ value[:, :, :end]
        blocks.append(mixed.unflatten(2, (group, -1)))
    return torch.cat(blocks, dim=3).flatten(1, 2)


class OwnBlockedAttention(torch.autograd.Function):
    """`blocked_attention`, to the bit, with a backward pass that adds up what blocks say of a key where it is."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        batch, kv_heads, seq, size = key.shape
        query = (query / math.sqrt(size)).reshape(batch * kv_heads, -1, seq, size)
        key, value = key.reshape(-1, seq, size), value.reshape(-1, seq, size)
        later = torch.ones(BLOCK, BLOCK, dtype=torch.bool).triu(1)
        out = torch.empty_like(query)
        all_rows, all_probabilities = [], []
        for start in range(0, seq, BLOCK):
            end = min(start + BLOCK, seq)
            rows = query[:, :, start:end].flatten(1, 2)
            scores = rows @ key[:, :end].mT
            by_query = scores.unflatten(1, (-1, end - start))
            by_query[..., start:].masked_fill_(later[: end - start, : end - start], -torch.inf)
            probabilities = torch.softmax(scores, -1, out=scores)
            out[:, :, start:end] = (probabilities @ value[:, :end]).unflatten(1, (-1, end - start))
            all_rows.append(rows)
            all_probabilities.append(probabilities)
        ctx.save_for_backward(key, value, *all_rows, *all_probabilities)
        return out.view(batch, -1, seq, size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        key, value, *saved = ctx.saved_tensors
        (batch, heads, seq, size), num_blocks = d_out.shape, len(saved) // 2
        d_out = d_out.reshape(len(key), -1, seq, size)
        d_query, d_key, d_value = torch.empty_like(d_out), torch.zeros_like(key), torch.zeros_like(value)
        for i, (rows, probabilities) in enumerate(zip(saved[:num_blocks], saved[num_blocks:], strict=True)):
            start, end = i * BLOCK, min((i + 1) * BLOCK, seq)
            d_mixed = d_out[:, :, start:end].flatten(1, 2)
            d_value[:, :end].baddbmm_(probabilities.mT, d_mixed)
            d_scores = d_mixed @ value[:, :end].mT
            torch.ops.aten._softmax_backward_data.out(
                d_scores, probabilities, -1, d_scores.dtype, grad_input=d_scores
            )  # 0 where a key comes later, as its probability is
            d_key[:, :end].baddbmm_(d_scores.mT, rows)
            d_query[:, :, start:end] = (d_scores @ key[:, :end]).unflatten(1, (-1, end - start))
        like_key = (batch, -1, seq, size)
        return d_query.div_(math.sqrt(size)).view(batch, heads, seq, size), d_key.view(like_key), d_value.view(like_key)
