"""JSON lines, one for each token and layer: `{"req_id": 3, "token_idx": 0, "layer": 5, "topk_ids": [7, 1]}`.

`topk_weights` put the experts in order of rank; `phase`, "prefill" or "decode", tells the prompt. Lines of other
kinds, without experts, are passed over. A line without a request belongs to one and the same.
"""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

from moe_toy.errors import UserError
from moe_toy.traces.contents import lines
from moe_toy.traces.requests import Requests
from moe_toy.traces.rows import is_prompt, requests_of

log = logging.getLogger(__name__)
REQUEST = ("req_id", "request_id", "rid", "request", "seq_id", "sequence_id", "sequence")
TOKEN = ("token_idx", "token_index", "token_pos", "token_position", "position", "pos", "step", "token")
LAYER = ("layer", "layer_id", "layer_idx", "layer_index")
EXPERTS = ("topk_ids", "top_k_ids", "expert_ids", "experts", "selected_experts", "topk_experts")
PHASE = ("phase", "stage")
WEIGHTS = ("topk_weights", "top_k_weights", "expert_weights", "weights")


def recognise(head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def read(path: Path) -> Requests:
    found: dict[str, list[Any]] = {name: [] for name in ("request", "token", "layer", "experts", "weights", "lines")}
    found["prompt"] = []
    others = 0
    for number, text in lines(path):
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: line {number} is no JSON ({error}); remove it or record again") from None
        if not isinstance(row, dict) or _named(row, EXPERTS) is None:
            others += 1
            continue
        where = f"{path}: line {number}"
        experts = _named(row, EXPERTS)
        if not isinstance(experts, list) or not all(is_id(expert) for expert in experts):
            raise UserError(f"{where} has experts {str(experts)[:60]!r}; they must be a list of ids, with -1 for none")
        weights = _named(row, WEIGHTS)
        if weights is not None and not (isinstance(weights, list) and all(_is_number(weight) for weight in weights)):
            raise UserError(f"{where} has weights {str(weights)[:60]!r}; they must be a list of numbers")
        found["request"].append(_named(row, REQUEST))
        found["token"].append(_id(row, TOKEN, where))
        found["layer"].append(_id(row, LAYER, where))
        found["experts"].append(experts)
        found["weights"].append(weights)
        found["lines"].append(number)
        found["prompt"].append(is_prompt(_named(row, PHASE), where))
    if others:
        log.info("%s: %d lines name no experts and are passed over", path, others)
    return requests_of(path, **found)


def _named(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _id(row: dict[str, Any], names: tuple[str, ...], where: str) -> int:
    value = _named(row, names)
    if not is_id(value) or value < 0:
        given = "absent" if value is None else repr(value)[:60]
        raise UserError(f"{where}: '{names[0]}' is {given}; give a number from 0 under one of {', '.join(names)}")
    return value


def is_id(value: Any) -> bool:
    """Whether it is a number that an array of ids can hold, -1 for none included."""
    return isinstance(value, int) and not isinstance(value, bool) and -(2**31) < value < 2**31


def _is_number(value: Any) -> bool:
    return isinstance(value, int) or (isinstance(value, float) and not math.isnan(value))
