"""CSV with a row for each token and layer and a list of its experts: `layer,token,experts` and `0,0,"[7, 1]"`.

The column of tokens may be absent, or hold their text: then rows of a layer are tokens in their order. A column of the
request or batch keeps requests apart.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from moe_toy.errors import UserError
from moe_toy.traces import json_lines
from moe_toy.traces.contents import lines
from moe_toy.traces.requests import Requests
from moe_toy.traces.rows import is_prompt, requests_of

REQUEST = (*json_lines.REQUEST, "batch", "batch_id", "batch_idx", "sample", "prompt_id")
TOKEN = (*json_lines.TOKEN, "token_id_in_sequence")
LIST = re.compile(r"[\[(]?\s*(-?\d{1,9}([\s,;|]+-?\d{1,9})*)\s*[,;]?\s*[\])]?")


def recognise(head: bytes) -> bool:
    columns = columns_of(head)
    return bool(_place(columns, json_lines.LAYER) is not None and _place(columns, json_lines.EXPERTS) is not None)


def columns_of(head: bytes) -> list[str]:
    """The names in the first line that is no comment."""
    texts = head.decode(errors="replace").strip("\ufeff").splitlines()
    header = next((text for text in texts if text.strip() and not text.startswith("#")), "")
    return [name.strip().strip('"').lower().replace(" ", "_") for name in header.split(",")]


def read(path: Path) -> Requests:
    numbered = lines(path)
    header = next(text for _, text in numbered if not text.startswith("#"))
    columns = columns_of(header.encode())
    places = {
        "request": _place(columns, REQUEST),
        "token": _place(columns, TOKEN),
        "layer": _place(columns, json_lines.LAYER),
        "experts": _place(columns, json_lines.EXPERTS),
        "phase": _place(columns, json_lines.PHASE),
    }
    found: dict[str, list] = {"request": [], "token": [], "layer": [], "experts": [], "lines": [], "prompt": []}
    for number, text in numbered:
        cells = _cells(text, f"{path}: line {number}")
        if text.startswith("#") and len(cells) != len(columns):
            continue  # a comment; with as many cells it is a row whose first one is the text of a token
        if len(cells) != len(columns):
            raise UserError(
                f"{path}: line {number} has {len(cells)} cells, the header {len(columns)}; put lists into quotes"
            )
        where = f"{path}: line {number}"
        found["request"].append(None if places["request"] is None else cells[places["request"]])
        found["token"].append("" if places["token"] is None else cells[places["token"]])
        found["layer"].append(_layer(cells[places["layer"]], where))
        found["experts"].append(_experts(cells[places["experts"]], where))
        found["lines"].append(number)
        found["prompt"].append(places["phase"] is not None and is_prompt(cells[places["phase"]], where))
    found["token"] = _positions(path, found)
    return requests_of(path, **found)


def _positions(path: Path, found: dict[str, list]) -> list[int]:
    """The position of every token: as it is numbered, or by the order of rows where tokens are texts."""
    tokens = found["token"]
    streams = list(zip(found["request"], found["layer"], strict=True))
    if all(re.fullmatch(r"\d{1,9}", token) for token in tokens):
        positions = [int(token) for token in tokens]
        last: dict[object, int] = {}
        follows = 0
        for stream, position in zip(streams, positions, strict=True):
            follows += position - last.get(stream, position - 1) == 1
            last[stream] = position
        if follows > len(positions) / 2:  # else they are ids of tokens
            return positions
    counts: dict[object, int] = {}
    positions = []
    for stream in streams:
        positions.append(counts.get(stream, 0))
        counts[stream] = positions[-1] + 1
    by_request: dict[object, dict[object, int]] = {}
    for (request, layer), count in counts.items():
        by_request.setdefault(request, {})[layer] = count
    for request, by_layer in by_request.items():
        if len(set(by_layer.values())) > 1:
            few, many = min(by_layer, key=by_layer.get), max(by_layer, key=by_layer.get)
            named = "" if request is None else f" in request {request}"
            raise UserError(
                f"{path}: layer {few} has {by_layer[few]} rows{named}, layer {many} has {by_layer[many]}, and tokens "
                "have no numbers; add a column token_idx"
            )
    return positions


def _place(columns: list[str], names: tuple[str, ...]) -> int | None:
    return next((columns.index(name) for name in names if name in columns), None)


def _cells(text: str, where: str) -> list[str]:
    try:
        return next(csv.reader([text]))
    except csv.Error as error:
        raise UserError(f"{where} is no CSV ({error}); write it again") from None


def _layer(cell: str, where: str) -> int:
    if not re.fullmatch(r"\s*\d{1,6}\s*", cell):
        raise UserError(f"{where}: the layer is {cell[:60]!r}; it must be a number from 0")
    return int(cell)


def _experts(cell: str, where: str) -> list[int]:
    if not (matched := LIST.fullmatch(cell.strip())):
        raise UserError(f'{where}: the experts are {cell[:60]!r}; they must be a list of ids such as "[7, 1]"')
    return [int(expert) for expert in re.split(r"[\s,;|]+", matched[1])]
