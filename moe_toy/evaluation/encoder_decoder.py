"""What an encoder-decoder model reads when it is given a block of text.

The paper measures the encoder and the decoder of NLLB-MoE and SwitchTransformers apart, but its text protocol is not
published; these are our choices.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

MASK_EVERY = 16
"""With blocks of 512 tokens the decoder of a mask-filling model reads 65, the length that the paper reports."""


class Inputs(NamedTuple):
    encoder: Int[Tensor, "batch seq"]
    decoder: Int[Tensor, "batch target"]


def copied(token_ids: Int[Tensor, "batch seq"], *, start_id: int) -> Inputs:
    """The decoder writes what the encoder reads, teacher-forced."""
    return Inputs(token_ids, torch.cat([torch.full_like(token_ids[:, :1], start_id), token_ids[:, :-1]], dim=1))


def masked(token_ids: Int[Tensor, "batch seq"], *, start_id: int, sentinel_ids: list[int]) -> Inputs:
    """Mask filling as in T5: every `MASK_EVERY`-th token gives way to a sentinel of its own, and the decoder, teacher-
    forced, writes each sentinel and the token behind it."""
    hidden = torch.arange(MASK_EVERY - 1, token_ids.shape[1], MASK_EVERY)[: len(sentinel_ids)]
    sentinels = torch.tensor(sentinel_ids[: len(hidden)]).expand(len(token_ids), -1)
    encoder = token_ids.clone()
    encoder[:, hidden] = sentinels
    pairs = torch.stack([sentinels, token_ids[:, hidden]], dim=-1).flatten(1)
    return Inputs(encoder, torch.cat([torch.full_like(token_ids[:, :1], start_id), pairs], dim=1))
