"""CSV of an engine that streams experts: `turn,phase,step,layer,slot,expert`, a row for each expert; slot is its rank.

Phase 0 is the prompt. Comments before the header may say `n_expert=128` and, of every layer, `layer=0
expert_bytes=3059712`. Other columns are passed over.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from moe_toy.errors import UserError
from moe_toy.traces.contents import lines
from moe_toy.traces.expert_lists import columns_of
from moe_toy.traces.json_lines import is_id
from moe_toy.traces.requests import Requests
from moe_toy.traces.rows import requests_of

COLUMNS = ("turn", "phase", "step", "layer", "slot", "expert")


def recognise(head: bytes) -> bool:
    return set(COLUMNS[1:]) <= set(columns_of(head))


def read(path: Path) -> Requests:
    """A request for each turn; a prompt that follows an answer begins another."""
    num_experts, sizes, columns = None, {}, None
    chosen: dict[tuple[int, int, int], dict[int, int]] = {}
    first: dict[tuple[int, int, int], int] = {}
    in_prompt: dict[tuple[int, int, int], bool] = {}
    for number, text in lines(path):
        if text.startswith("#"):
            said = {name: int(value) for name, value in re.findall(r"(\w+)=(\d{1,12})\b", text)}
            num_experts = said.get("n_expert", num_experts)
            if {"layer", "expert_bytes"} <= said.keys():
                sizes[said["layer"]] = said["expert_bytes"]
            continue
        cells = text.split(",")
        if columns is None:
            columns = columns_of(text.encode())
            places = [columns.index(name) if name in columns else None for name in COLUMNS]
            continue
        try:
            turn, phase, step, layer, slot, expert = (0 if at is None else int(cells[at]) for at in places)
        except (ValueError, IndexError):
            raise UserError(f"{path}: line {number} is {text[:60]!r}; it must hold numbers for {columns}") from None
        if min(turn, step, layer, slot) < 0 or not all(map(is_id, (turn, step, layer, slot, expert))):
            raise UserError(f"{path}: line {number} is {text[:60]!r}; its numbers must be from 0 and below 2³¹")
        if phase not in (0, 1):
            raise UserError(f"{path}: line {number} is of phase {phase}; it must be 0, the prompt, or 1, the answer")
        if slot in chosen.setdefault((turn, step, layer), {}):
            raise UserError(f"{path}: line {number} repeats slot {slot} of step {step}, layer {layer}; record again")
        chosen[turn, step, layer][slot] = expert
        first.setdefault((turn, step, layer), number)
        in_prompt[turn, step, layer] = phase == 0
    keys = list(chosen)
    requests = requests_of(
        path,
        request=[turn for turn, _, _ in keys],
        token=[step for _, step, _ in keys],
        layer=[layer for _, _, layer in keys],
        experts=[[expert for _, expert in sorted(chosen[key].items())] for key in keys],
        lines=[first[key] for key in keys],
        prompt=[in_prompt[key] for key in keys],
    )
    sized = set(requests.layer_ids) <= set(sizes) and 0 not in sizes.values()
    return replace(
        requests,
        num_experts=num_experts,
        expert_bytes=tuple(sizes[layer] for layer in requests.layer_ids) if sized else None,
    )
