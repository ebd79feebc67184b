"""Causal attention, two ways: PyTorch's, and one that is faster on a CPU. Both give equal values and gradients."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

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
