"""What a cache of experts is asked for, in order: token by token or layer by layer, a prompt as one long token."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Int32, Int64, Integer
from torch import Tensor

from moe_toy.metrics.activation import compact_expert_ids

Scope = Literal["layer", "model"]
"""One cache per layer, or one cache which all layers share."""
Order = Literal["token", "layer"]
"""Whether a cache of the whole model is asked for all experts of a token at once, or for one layer after another. One
cache per layer is asked the same; in layer order none of the experts of a token evicts another."""


class Lookups(NamedTuple):
    """The requests of every sequence to each cache, cut into lookups."""

    requests: Int32[Tensor, "row batch request"]
    """Items, the most important of each lookup first; -1 is none. In a cache of the whole model every layer has its
    own."""
    ends: Int64[Tensor, "batch lookup"]
    """Where each lookup ends."""
    sights: Int64[Tensor, "batch lookup"]
    """Up to where a policy sees that looks ahead, in whole tokens."""
    counted: Int64[Tensor, " batch"]
    """The first lookup after the prompt."""

    def counted_requests(self) -> Int64[Tensor, "row batch"]:
        """How many requests follow the prompt."""
        begins = F.pad(self.ends, (1, 0)).gather(1, self.counted[:, None])
        return ((self.requests >= 0) & (torch.arange(self.requests.shape[2]) >= begins)).sum(-1)


def look_up(
    expert_ids: Integer[Tensor, "layer batch seq k"],
    num_experts: int,
    *,
    scope: Scope,
    order: Order,
    segment_length: int,
    prompt_lengths: Integer[Tensor, " batch"] | None = None,
) -> Lookups:
    """Order the requests. In a prompt each expert of a layer is asked for once, where it is used last."""
    ids = compact_expert_ids(expert_ids.cpu(), num_experts)
    layers, batch, seq, k = ids.shape
    if scope == "model":
        own = ids + num_experts * torch.arange(layers, dtype=ids.dtype)[:, None, None, None]
        ids = torch.where(ids < 0, ids, own)
        requests = rearrange(ids, "layer batch seq k -> 1 batch seq layer k").contiguous()
    else:
        requests = rearrange(ids, "layer batch seq k -> layer batch seq 1 k").clone()
    parts = layers if scope == "model" else 1  # of a token
    prompts = torch.zeros(batch, dtype=torch.int64) if prompt_lengths is None else prompt_lengths.cpu().long()
    for b in prompts.nonzero()[:, 0].tolist():
        prompt = requests[:, b, : prompts[b]]
        by_layer = rearrange(prompt, "row seq part k -> row part (seq k)").clone()
        requests[:, b, : prompts[b]] = _once(by_layer).reshape(prompt.shape)
    lookup_width, per_token = (k, parts) if order == "layer" else (k * parts, 1)
    # Tokens counted from the end of the prompt, which is token 0 if there is one.
    tokens = torch.arange(seq + 1)
    has_prompt = (prompts > 0).long()[:, None]
    token_ends = torch.where(tokens[None] < has_prompt, prompts[:, None], prompts[:, None] + tokens + 1 - has_prompt)
    token_ends = token_ends.clamp(max=seq)
    begins = torch.cat([torch.zeros(batch, 1, dtype=torch.int64), token_ends[:, :-1]], 1)
    widths = (token_ends - begins) * lookup_width
    ends = begins[..., None] * parts * k + widths[..., None] * torch.arange(1, per_token + 1)
    ahead = (tokens + segment_length - 1).clamp(max=seq)
    sights = (token_ends[:, ahead] * parts * k)[..., None].expand(-1, -1, per_token)
    return Lookups(requests.flatten(2), ends.flatten(1), sights.flatten(1).contiguous(), (has_prompt * per_token)[:, 0])


def _once(items: Int32[Tensor, "row part request"]) -> Int32[Tensor, "row part request"]:
    """Each item where it comes last, and -1 elsewhere."""
    for row in items.view(-1, items.shape[-1]):
        reverse = row.flip(0).numpy()
        kept = torch.from_numpy(len(reverse) - 1 - np.unique(reverse, return_index=True)[1])
        once = torch.full_like(row, -1)
        once[kept] = row[kept]
        row.copy_(once)
    return items
