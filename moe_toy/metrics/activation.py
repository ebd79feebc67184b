"""Which experts fire where, and how often within a sliding segment: the counts that other metrics share.

A segment is any window of `segment_length` consecutive tokens of one sequence; segments overlap and start at every
token, so a sequence of `seq` tokens has `seq - segment_length + 1` of them, none if it is shorter.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Int32, Int64, Integer
from torch import Tensor

from moe_toy.errors import UserError

SEGMENT_LENGTH = 16
"""Of which the paper reports most: the default of every metric, and what specialization is measured on."""


def activation_mask(
    expert_ids: Integer[Tensor, "*batch seq k"], num_experts: int
) -> Bool[Tensor, "*batch seq {num_experts}"]:
    """True where a token activates an expert; -1 is none. The order of a token's experts does not matter."""
    mask = torch.zeros(*expert_ids.shape[:-1], num_experts + 1, dtype=torch.bool, device=expert_ids.device)
    return mask.scatter_(-1, or_beyond(expert_ids, num_experts), True)[..., :-1]


def or_beyond(expert_ids: Integer[Tensor, "*any"], num_experts: int) -> Int64[Tensor, "*any"]:
    """The ids as indices, with the place beyond the last expert for -1."""
    ids = expert_ids.long()
    return torch.where(ids < 0, num_experts, ids)


def segment_counts(
    expert_ids: Integer[Tensor, "*batch seq k"], num_experts: int, segment_length: int
) -> Int64[Tensor, "*batch segment {num_experts}"]:
    """How many tokens of each segment activate each expert, in 0..segment_length."""
    check_segment_length(segment_length)
    if expert_ids.shape[-2] < segment_length:
        return torch.zeros(*expert_ids.shape[:-2], 0, num_experts, dtype=torch.int64, device=expert_ids.device)
    running = F.pad(activation_mask(expert_ids, num_experts).cumsum(-2), (0, 0, 1, 0))
    return running[..., segment_length:, :] - running[..., :-segment_length, :]


def segment_histogram(
    expert_ids: Integer[Tensor, "layer batch seq k"],
    num_experts: int,
    segment_length: int,
    groups: Int64[Tensor, " batch"] | None = None,
    num_groups: int = 1,
    *,
    pool_experts: bool = False,
) -> Int64[Tensor, "{num_groups} layer expert bins"]:
    """How many segments activate an expert 0, 1, ... `segment_length` times, summed over the sequences of a group.

    `groups` names the group of every sequence, in 0..num_groups - 1, for instance its domain; by default all are one.
    With `pool_experts` the expert axis is summed, and has one row.
    """
    check_segment_length(segment_length)
    layers, batch = expert_ids.shape[:2]
    if groups is None:
        groups = torch.zeros(batch, dtype=torch.int64, device=expert_ids.device)
    rows = 1 if pool_experts else num_experts
    histogram = torch.zeros(num_groups, layers, rows, segment_length + 1, dtype=torch.int64, device=expert_ids.device)
    if expert_ids.device.type == "cpu":
        from moe_toy.metrics.activation_kernel import add_segment_histogram  # numba takes half a second

        ids = compact_expert_ids(expert_ids, num_experts)
        add_segment_histogram(ids.numpy(), num_experts, groups.numpy(), segment_length, histogram.numpy())
    else:
        for layer, ids in enumerate(expert_ids):
            dense = _dense_histogram(ids, num_experts, segment_length, groups, num_groups)
            histogram[:, layer] = dense.sum(1, keepdim=True) if pool_experts else dense
    return histogram


def _dense_histogram(
    expert_ids: Integer[Tensor, "batch seq k"],
    num_experts: int,
    segment_length: int,
    groups: Int64[Tensor, " batch"],
    num_groups: int,
) -> Int64[Tensor, "{num_groups} {num_experts} bins"]:
    """One layer of `segment_histogram` in plain tensor operations, for accelerators."""
    uses = segment_counts(expert_ids, num_experts, segment_length)
    histogram = uses.new_zeros(num_groups, num_experts, segment_length + 1)
    row = rearrange(groups, "batch -> batch 1 1") * num_experts + torch.arange(num_experts, device=uses.device)
    cell = (row * (segment_length + 1) + uses).flatten()
    histogram.view(-1).scatter_add_(0, cell, torch.ones_like(cell))
    return histogram


def segment_activations(
    expert_ids: Integer[Tensor, "layer batch seq k"], num_experts: int, segment_length: int
) -> Int64[Tensor, "batch layer {num_experts}"]:
    """Activations of each expert in each sequence, counted once per segment that holds them.

    A token in the middle of a sequence lies in `segment_length` segments, one near an end in fewer.
    """
    check_segment_length(segment_length)
    seq = expert_ids.shape[2]
    position = torch.arange(seq, device=expert_ids.device)
    first = (position - segment_length + 1).clamp(min=0)
    last = position.clamp(max=seq - segment_length)
    segments = (last - first + 1).clamp(min=0)  # that hold the token
    activations = segments.new_zeros(*expert_ids.shape[:2], num_experts + 1)
    ids = or_beyond(rearrange(expert_ids, "layer batch seq k -> layer batch (seq k)"), num_experts)
    activations.scatter_add_(-1, ids, segments.repeat_interleave(expert_ids.shape[3]).expand_as(ids))
    return rearrange(activations[..., :-1], "layer batch expert -> batch layer expert")


def check_segment_length(segment_length: int) -> None:
    if segment_length < 1:
        raise UserError(f"segment_length must be at least 1 token, not {segment_length}; the paper uses 4 to 256")


def compact_expert_ids(
    expert_ids: Integer[Tensor, "layer batch seq k"], num_experts: int
) -> Int32[Tensor, "layer batch seq k"]:
    """The ids as compiled loops take them, -1 for none. The loops index without looking, so the range is checked."""
    ids = expert_ids.to(torch.int32).contiguous()
    check_expert_ids(ids, num_experts)
    return ids


def check_expert_ids(expert_ids: Integer[Tensor, "*any"], num_experts: int) -> None:
    """Raise `UserError` unless every id is that of an expert, or -1."""
    ids = expert_ids.to(torch.int32)  # torch lacks aminmax for uint16
    if ids.numel():
        low, high = (int(bound) for bound in ids.aminmax())
        if not -1 <= low <= high < num_experts:
            raise UserError(
                f"expert_ids range over {low}..{high}, but num_experts is {num_experts}; "
                "number experts from 0, and pass how many routed experts the model has"
            )
