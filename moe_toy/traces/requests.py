"""What an importer reads from a file of another program: requests of any lengths, and where they stand in the file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from moe_toy.errors import UserError

log = logging.getLogger(__name__)
PROFILE_ROWS = 64
"""Engines warm up on identical tokens, thousands of them; this many equal tokens at the start are no text."""
SORTED_ROWS = 32
"""This many experts lists in ascending order are no ranks."""


@dataclass(frozen=True)
class Requests:
    experts: list[np.ndarray]
    """Of each request: int64 [token, layer, k], best expert first if `ordered`; -1 is none."""
    rows: list[np.ndarray]
    """Where each token and layer stands in the file: [token, layer]."""
    layer_ids: tuple[int, ...]
    unit: str = "row"
    """What `rows` number: rows from 0 or lines from 1."""
    token_ids: list[np.ndarray] | None = None
    prompt_lengths: list[int] | None = None
    ordered: bool = True
    expert_bytes: tuple[int, ...] | None = None
    num_experts: int | None = None

    def of_layers(self, kept: Sequence[int]) -> Requests:
        return replace(
            self,
            experts=[ids[:, list(kept)] for ids in self.experts],
            rows=[rows[:, list(kept)] for rows in self.rows],
            layer_ids=tuple(self.layer_ids[i] for i in kept),
            expert_bytes=self.expert_bytes and tuple(self.expert_bytes[i] for i in kept),
        )

    def pieces(self, wanted: Sequence[tuple[int, int, int]]) -> Requests:
        """Parts of requests: (request, first token, end)."""
        prompts = self.prompt_lengths
        tokens = self.token_ids
        return replace(
            self,
            experts=[self.experts[i][first:end] for i, first, end in wanted],
            rows=[self.rows[i][first:end] for i, first, end in wanted],
            token_ids=None if tokens is None else [tokens[i][first:end] for i, first, end in wanted],
            prompt_lengths=prompts and [min(max(prompts[i] - first, 0), end - first) for i, first, end in wanted],
        )


def cleaned(requests: Requests, path: Path, num_experts: int | None, *, keep_constant_layers: bool) -> Requests:
    """Without an engine's profile run, dense layers and tokens without routing. Raises `UserError`, naming the row,
    where ids are out of range or an expert stands twice."""
    requests = without_missing_tokens(requests, path)
    requests = without_profile_run(requests, path)
    requests = without_constant_layers(requests, path, num_experts, keep_constant_layers=keep_constant_layers)
    num_experts = num_experts or requests.num_experts
    highest = max(int(ids.max()) for ids in requests.experts)
    if num_experts is None:
        raise UserError(
            f"{path} does not say how many experts a layer has; give target.num_experts, at least {highest + 1}"
        )
    for ids, rows in zip(requests.experts, requests.rows, strict=True):
        if ((ids >= num_experts) | (ids < -1)).any():
            token, layer, rank = np.argwhere((ids >= num_experts) | (ids < -1))[0]
            found = int(ids[token, layer, rank])
            where = f"{path}: {requests.unit} {rows[token, layer]}"
            way_out = f"target.num_experts={highest + 1} works" if found >= 0 else "ids begin at 0, and -1 is none"
            raise UserError(
                f"{where} names expert {found} in layer {requests.layer_ids[layer]}, but "
                f"target.num_experts is {num_experts}; {way_out}"
            )
        ascending = np.sort(ids, -1)
        twice = ((np.diff(ascending, axis=-1) == 0) & (ascending[..., 1:] >= 0)).any(-1)
        if twice.any():
            token, layer = np.argwhere(twice)[0]
            where = f"{path}: {requests.unit} {rows[token, layer]}"
            raise UserError(
                f"{where} names an expert twice in layer {requests.layer_ids[layer]}: "
                f"{ids[token, layer].tolist()}; record the routing again"
            )
    ordered = requests.ordered and not in_ascending_order(requests.experts)
    if not ordered:
        log.info("%s: experts stand in no order of rank; what needs the best one is left out", path)
    return replace(requests, num_experts=num_experts, ordered=ordered)


def with_answers(requests: Requests, path: Path) -> Requests:
    """Where nothing but prompts would be left, nothing would be counted."""
    prompts = requests.prompt_lengths
    if prompts and prompts == [len(ids) for ids in requests.experts]:
        log.warning("%s: all tokens are of prompts; they are counted as those of answers are", path)
        return replace(requests, prompt_lengths=None)
    return requests


def without_missing_tokens(requests: Requests, path: Path) -> Requests:
    """Requests end where tokens have no expert in any layer, such as padding: nothing is counted across."""
    wanted = []
    for number, ids in enumerate(requests.experts):
        there = np.flatnonzero((ids >= 0).any((1, 2)))
        for part in np.split(there, np.flatnonzero(np.diff(there) != 1) + 1):
            if len(part):
                wanted.append((number, int(part[0]), int(part[-1]) + 1))
    if not wanted:
        raise UserError(f"{path} names no expert at all; record the routing again")
    return requests.pieces(wanted)


def without_profile_run(requests: Requests, path: Path) -> Requests:
    first = np.sort(requests.experts[0][0], -1)
    identical, lengths = 0, [len(ids) for ids in requests.experts]
    for ids in requests.experts:
        other = (np.sort(ids, -1) != first).any((1, 2))
        identical += int(other.argmax()) if other.any() else len(ids)
        if other.any():
            break
    if identical < PROFILE_ROWS:
        return requests
    if identical == sum(lengths):
        raise UserError(f"{path}: all {identical} tokens choose the same experts in every layer; record a real request")
    log.warning(
        "%s: the first %d of %d tokens choose the same experts in every layer, as an engine's profile run does; "
        "they are left out",
        path,
        identical,
        sum(lengths),
    )
    starts = np.cumsum([0, *lengths[:-1]])
    return requests.pieces(
        [
            (i, max(identical - int(s), 0), n)
            for i, (s, n) in enumerate(zip(starts, lengths, strict=True))
            if s + n > identical
        ]
    )


def without_constant_layers(
    requests: Requests, path: Path, num_experts: int | None, *, keep_constant_layers: bool
) -> Requests:
    """Engines report dense layers too, filled with one number or one set. A layer of an MoE could have collapsed, but
    then its SRP of 1 would say nothing of locality either."""
    everything = np.sort(np.concatenate(requests.experts), -1)
    constant = (everything == everything[:1]).all((0, 2))
    empty = (everything < 0).all((0, 2))
    if everything.shape[-1] == (num_experts or requests.num_experts):  # all experts, always
        constant &= (np.diff(everything[0], axis=-1) == 0).any(-1)
    if len(everything) < 2:
        constant &= (everything[0, :, 1:] == everything[0, :, :-1]).all(-1) & (everything.shape[-1] > 1)
    left_out = (empty | constant) if not keep_constant_layers else empty
    if left_out.all():
        raise UserError(
            f"{path}: every layer names the same experts for all tokens, so none is an MoE layer; record the routing "
            "again, or set target.keep_constant_layers=true"
        )
    if left_out.any():
        log.warning(
            "%s: layer %s has the same experts for every token, as a dense layer has in recordings: left out "
            "(target.keep_constant_layers=true keeps it)",
            path,
            ", ".join(str(requests.layer_ids[i]) for i in np.flatnonzero(left_out)),
        )
    return requests.of_layers(np.flatnonzero(~left_out).tolist())


def in_ascending_order(experts: list[np.ndarray]) -> bool:
    """Whether the experts of all tokens stand by number, as nobody ranks them."""
    k = experts[0].shape[-1]
    if k == 1 or sum(len(ids) * ids.shape[1] for ids in experts) < SORTED_ROWS:
        return False
    return all(((np.diff(ids, axis=-1) > 0) | (ids[..., 1:] < 0)).all() for ids in experts)
