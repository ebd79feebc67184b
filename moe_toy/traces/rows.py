"""From rows, one for each token and layer in any order, to requests."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from moe_toy.errors import UserError
from moe_toy.traces.requests import Requests

if TYPE_CHECKING:
    import pandas as pd

MOST_EMPTY = 1000
"""More places than this for each id that is there are no recording."""
PHASES = {"prompt": True, "prefill": True, "extend": True, "0": True}
PHASES |= dict.fromkeys(("answer", "decode", "generate", "generation", "response", "1"), False)
"""What rows of a prompt are called, and those of an answer."""
log = logging.getLogger(__name__)


def requests_of(
    path: Path,
    *,
    request: Sequence[object],
    token: Sequence[int],
    layer: Sequence[int],
    experts: Sequence[Sequence[int]],
    lines: Sequence[int],
    weights: Sequence[Sequence[float] | None] | None = None,
    prompt: Sequence[bool] | None = None,
) -> Requests:
    """A request that begins again, under the same name, is another. Where tokens are missing it ends, and where a
    `prompt` follows an answer."""
    import pandas as pd  # half a second

    if not len(token):
        raise UserError(f"{path} holds no row of routing; record it again")
    table = pd.DataFrame({"request": pd.factorize(np.array([str(name) for name in request], dtype=object))[0]})
    table["token"], table["layer"], table["line"] = np.array(token), np.array(layer), np.array(lines)
    table["pass"] = 0
    if table.duplicated(["request", "token", "layer"]).any():
        again = table.groupby(["request", "layer"]).token.diff() <= 0
        table["pass"] = again.groupby([table.request, table.layer]).cumsum()
        _check_all_layers_repeat(table, path)
        again = table.groupby("request")["pass"].max()
        log.warning("%s: %d requests begin again under their names; each time is a request", path, (again > 0).sum())
        starts = table.groupby(["request", "pass"]).token.min()
        if later := int((starts > starts.groupby("request").transform("first")).sum()):
            log.warning(
                "%s: %d times a request goes back to another token than its first; requests that ran at once are mixed "
                "where rows do not name them (req_id)",
                path,
                later,
            )
    layers, column = np.unique(table.layer, return_inverse=True)
    keys = table[["request", "pass", "token"]].to_numpy()
    tokens, place = np.unique(keys, axis=0, return_inverse=True)
    place = place.reshape(-1)
    if len(tokens) * len(layers) * max(map(len, experts)) > MOST_EMPTY * (sum(map(len, experts)) + MOST_EMPTY):
        raise UserError(
            f"{path}: {len(tokens)} tokens, {len(layers)} layers and up to {max(map(len, experts))} experts stand in "
            f"only {len(experts)} rows; most rows are missing, so record it again"
        )
    filled = np.full((len(tokens), len(layers), max(map(len, experts))), -1, np.int64)
    filled[place, column] = _padded(experts, filled.shape[-1], weights, lines, path)
    line_of = np.full(filled.shape[:2], np.iinfo(np.int64).max)
    line_of[place, column] = table.line
    missing = int((filled < 0).all(-1).sum())
    if missing:
        log.warning(
            "%s: %d of %d pairs of token and layer have no expert; they count as using none",
            path,
            missing,
            filled.shape[0] * filled.shape[1],
        )
    another = (np.diff(tokens[:, :2], axis=0) != 0).any(1)
    gaps = int((~another & (np.diff(tokens[:, 2]) != 1)).sum())
    if gaps:
        log.warning("%s: tokens are missing in %d places; nothing is counted across them", path, gaps)
    in_prompt = np.zeros(len(tokens), bool)
    if prompt is not None:
        in_prompt[place[np.flatnonzero(prompt)]] = True
        _check_answers_go_on(tokens, in_prompt, line_of, path)
    turns = ~another & in_prompt[1:] & ~in_prompt[:-1]
    if turns.any():
        log.warning("%s: %d prompts follow an answer; each begins a request of its own", path, turns.sum())
    ends = np.flatnonzero(another | (np.diff(tokens[:, 2]) != 1) | turns) + 1
    parts = sorted(np.split(np.arange(len(tokens)), ends), key=lambda part: line_of[part[0]].min())
    return Requests(
        experts=[filled[part] for part in parts],
        rows=[line_of[part] for part in parts],
        layer_ids=tuple(int(number) for number in layers),
        unit="line",
        prompt_lengths=None if prompt is None else [int(in_prompt[part].sum()) for part in parts],
    )


def is_prompt(phase: object, where: str) -> bool:
    """Whether a row is of a prompt, by what stands as its phase; a row without one is of an answer."""
    found = None if phase is None else PHASES.get(str(phase).strip().lower())
    if phase is not None and found is None:
        raise UserError(f"{where} has the phase {str(phase)[:60]!r}; it must be one of {', '.join(PHASES)}")
    return bool(found)


def _check_all_layers_repeat(table: pd.DataFrame, path: Path) -> None:
    """A request that begins again does so in every layer; else a row stands twice."""
    passes = table.groupby(["request", "layer"])["pass"].max()
    uneven = passes.groupby("request").agg(lambda of_layers: of_layers.nunique() > 1)
    if uneven.any():
        rows = table[table.request == uneven.index[uneven][0]]
        row = rows[rows.duplicated(["request", "token", "layer"])].iloc[0]
        raise UserError(
            f"{path}: line {row.line} repeats token {row.token} of layer {row.layer}, but other layers do not repeat "
            "it; remove it or record again"
        )


def _check_answers_go_on(tokens: np.ndarray, in_prompt: np.ndarray, line_of: np.ndarray, path: Path) -> None:
    """Refuse answers that are numbered from 0 again: they would be requests without their prompts."""
    starts = np.flatnonzero(np.diff(tokens[:, 1], prepend=0) > 0)
    again = [int(at) for at in starts if in_prompt[at - 1] and not in_prompt[at]]
    if again:
        raise UserError(
            f"{path}: line {line_of[again[0]].min()} begins an answer at token {tokens[again[0], 2]} again; number "
            "tokens on from the prompt"
        )


def _padded(
    experts: Sequence[Sequence[int]],
    width: int,
    weights: Sequence[Sequence[float] | None] | None,
    lines: Sequence[int],
    path: Path,
) -> np.ndarray:
    """Experts of every row, heaviest first where weights are known, filled up with -1."""
    filled = np.full((len(experts), width), -1, np.int64)
    for number, ids in enumerate(experts):
        weight = weights[number] if weights is not None else None
        if weight is not None:
            if len(weight) != len(ids):
                raise UserError(
                    f"{path}: line {lines[number]} has {len(ids)} experts and {len(weight)} weights; record it again"
                )
            filled[number, : len(ids)] = [ids[i] for i in sorted(range(len(ids)), key=lambda i: -weight[i])]
        else:
            filled[number, : len(ids)] = ids
    return filled
