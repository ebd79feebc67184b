"""The balance loss of Switch (Fedus et al. 2021, arXiv 2101.03961), averaged over windows of tokens."""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from moe_toy.balance.counts import assignment_counts
from moe_toy.routing import Routing


def stack_choices(
    routings: list[Routing],
) -> tuple[Int[Tensor, "layer batch seq k"], Float[Tensor, "layer batch seq expert"]]:
    """The chosen experts and the scores of all MoE layers."""
    return torch.stack([routing.expert_ids for routing in routings]), torch.stack([r.scores for r in routings])


def load_balance_loss(
    counts: Float[Tensor, "*group expert"] | Tensor, mean_scores: Float[Tensor, "*group expert"]
) -> Float[Tensor, "*group"]:
    """In [0, num_experts]; 1 where the load or the mean scores are even, num_experts where both are on one expert."""
    load = counts.to(mean_scores.dtype) / counts.sum(-1, keepdim=True)
    return counts.shape[-1] * (load * mean_scores).sum(-1)


def windowed_balance_loss(
    expert_ids: Int[Tensor, "layer batch seq k"],
    scores: Float[Tensor, "layer batch seq expert"],
    segment_length: int | None,
) -> Float[Tensor, " layer"]:
    """The mean of `load_balance_loss` over windows of `segment_length` tokens of a sequence, weighted by their tokens,
    since the last window of a sequence may be shorter; None makes all tokens one window."""
    return sum(
        load_balance_loss(assignment_counts(chosen, scores.shape[-1]), given.mean(-2)).mean(-1)
        * (given.numel() / scores.numel())
        for chosen, given in zip(_windows(expert_ids, segment_length), _windows(scores, segment_length), strict=True)
    )


def _windows(x: Tensor, length: int | None) -> list[Tensor]:
    """(layer, window, token, ...): the runs of tokens over which load is averaged, by equal length."""
    if length is None:
        return [rearrange(x, "layer batch seq last -> layer 1 (batch seq) last")]
    whole = x.shape[2] // length * length
    segments = rearrange(
        x[:, :, :whole], "layer batch (segment token) last -> layer (batch segment) token last", token=length
    )
    return [part for part in (segments, x[:, :, whole:]) if part.numel()]
