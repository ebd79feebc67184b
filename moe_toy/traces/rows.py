"""From rows, one for each token and layer in any order, to requests."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from moe_toy.errors import UserError
from moe_toy.traces.requests import Requests

MOST_EMPTY = 1000
"""More places than this for each id that is there are no recording."""
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
) -> Requests:
    """A request that begins again, under the same name, is another. Where tokens are missing it ends."""
    import pandas as pd  # half a second

    if not len(token):
        raise UserError(f"{path} holds no row of routing; record it again")
    table = pd.DataFrame({"request": pd.factorize(np.array([str(name) for name in request], dtype=object))[0]})
    table["token"], table["layer"], table["line"] = np.array(token), np.array(layer), np.array(lines)
    table["pass"] = 0
    if table.duplicated(["request", "token", "layer"]).any():
        again = table.groupby(["request", "layer"]).token.diff() <= 0
        table["pass"] = again.groupby([table.request, table.layer]).cumsum()
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
    ends = np.flatnonzero((np.diff(tokens[:, :2], axis=0) != 0).any(1) | (np.diff(tokens[:, 2]) != 1)) + 1
    gaps = len(ends) + 1 - len(np.unique(tokens[:, :2], axis=0))
    if gaps:
        log.warning("%s: tokens are missing in %d places; nothing is counted across them", path, gaps)
    parts = sorted(np.split(np.arange(len(tokens)), ends), key=lambda part: line_of[part[0]].min())
    return Requests(
        experts=[filled[part] for part in parts],
        rows=[line_of[part] for part in parts],
        layer_ids=tuple(int(number) for number in layers),
        unit="line",
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
