"""Import of routed experts as vLLM and SGLang return them: integers [token, layer, k] beside the ids of the tokens.

- `.npz` or `.safetensors`: arrays `routed_experts` and `token_ids`; with several sequences one after another also
  `lengths`, the number of rows of each.
- `.npy`: the routed experts alone; the token ids lie beside it in `NAME.tokens.npy`.

The last token of a generation was never fed to the model, so there may be one id more than rows in each sequence.
Engines report dense layers too, filled with one number: these have no row in the trace. Sequences are cut into blocks
of `sequence_length` tokens, and what is left over is dropped.
"""

from __future__ import annotations

import logging
import math
import zipfile
from io import BufferedIOBase
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Integer
from numpy.lib import format as npy
from safetensors.numpy import load_file

from moe_toy.errors import UserError
from moe_toy.routing import RoutingTrace

log = logging.getLogger(__name__)
IMPORTED = (".safetensors", ".npz", ".npy")
ARRAYS = ("routed_experts", "token_ids", "lengths")
MOST_PACKED = 100  # a kilobyte of zeros can be packed to a few bytes


def import_routed_experts(path: Path, *, num_experts: int, sequence_length: int) -> RoutingTrace:
    arrays = _read(path)
    experts, token_ids = arrays["routed_experts"], arrays["token_ids"].reshape(-1)
    if experts.ndim != 3 or not experts.shape[-1]:
        raise UserError(f"{path}: 'routed_experts' has shape {experts.shape}; it must be [token, layer, k]")
    lengths = arrays.get("lengths", np.array([len(experts)])).reshape(-1)
    token_ids = _fed_tokens(path, token_ids, lengths, len(experts))
    blocks = _blocks(lengths, sequence_length)
    if not blocks:
        raise UserError(
            f"{path}: no sequence has target.sequence_length={sequence_length} tokens, the longest has "
            f"{lengths.max(initial=0)}; lower it"
        )
    if dropped := len(experts) - sequence_length * len(blocks):
        log.info("%s: %d of %d tokens do not fill a block of %d", path, dropped, len(experts), sequence_length)
    rows = np.stack([np.arange(start, start + sequence_length) for start in blocks])
    chosen = torch.from_numpy(experts[rows].astype(np.int64)).permute(2, 0, 1, 3)  # layer batch seq k
    layer_ids = [layer for layer, ids in enumerate(chosen) if not _is_dense(ids)]
    if not layer_ids:
        raise UserError(f"{path}: every layer names one expert only, so none is an MoE layer; record the routing again")
    trace = RoutingTrace(
        expert_ids=chosen[layer_ids],
        token_ids=torch.from_numpy(token_ids[rows].astype(np.int64)),
        num_experts=num_experts,
        layer_ids=tuple(layer_ids),
    )
    trace.check(str(path))
    return trace


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        if path.suffix == ".npy":
            beside = path.with_suffix(".tokens.npy")
            arrays = {"routed_experts": _from_file(path), "token_ids": _from_file(beside)}
        else:
            arrays = _unpacked(path) if path.suffix == ".npz" else load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing; save the ids of the tokens there") from None
    except Exception as error:  # numpy, zipfile, zlib and safetensors each raise their own kinds for a damaged file
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}); save the arrays again") from error
    if missing := {"routed_experts", "token_ids"} - arrays.keys():
        raise UserError(f"{path} has no array '{min(missing)}', only {', '.join(sorted(arrays))}; add it")
    for name in ARRAYS:
        if name in arrays and not np.issubdtype(arrays[name].dtype, np.integer):
            raise UserError(f"{path}: '{name}' has type {arrays[name].dtype}; it must be integers")
    return arrays


def _unpacked(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        if sum(part.file_size for part in parts) > MOST_PACKED * path.stat().st_size:
            raise ValueError(f"it unpacks to more than {MOST_PACKED} times its size")
        if any(part.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for part in parts):
            raise ValueError("it is packed in a way that numpy does not use")  # and which may ask for gigabytes
        arrays = {}
        for part in parts:
            with archive.open(part) as file:
                arrays[part.filename.removesuffix(".npy")] = _array(file, part.file_size)
        return arrays


def _from_file(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        return _array(file, path.stat().st_size)


def _array(file: BufferedIOBase, size: int) -> np.ndarray:
    """As numpy reads it, which makes room for all that is declared before it looks whether that is there."""
    if (version := npy.read_magic(file)) != (1, 0):  # later ones are for headers of more than 64 KB
        raise ValueError(f"it is of version {version}, not (1, 0)")
    shape, _, dtype = npy.read_array_header_1_0(file)
    if math.prod(shape) * dtype.itemsize > size:
        raise ValueError("it declares more data than it holds")
    file.seek(0)
    return npy.read_array(file, allow_pickle=False)


def _fed_tokens(path: Path, token_ids: np.ndarray, lengths: np.ndarray, rows: int) -> np.ndarray:
    """The ids that belong to rows: without the last one of each sequence where it has no row."""
    if lengths.min(initial=0) < 0 or lengths.max(initial=0) > rows:
        raise UserError(f"{path}: 'lengths' must be between 0 and the {rows} rows of routed experts")
    if lengths.sum() != rows:
        raise UserError(f"{path}: 'lengths' sum to {lengths.sum()}, but there are {rows} rows of routed experts")
    if len(token_ids) == rows:
        return token_ids
    if len(token_ids) == rows + len(lengths):
        return np.delete(token_ids, np.cumsum(lengths + 1) - 1)
    raise UserError(
        f"{path}: {len(token_ids)} token ids for {rows} rows of routed experts; give one for each row, "
        "or one more in each sequence"
    )


def _blocks(lengths: np.ndarray, block: int) -> list[int]:
    """Where whole blocks begin."""
    starts = np.cumsum(lengths) - lengths
    return [
        int(start + first)
        for start, length in zip(starts, lengths, strict=True)
        for first in range(0, length - block + 1, block)
    ]


def _is_dense(ids: Integer[torch.Tensor, "batch seq k"]) -> bool:
    return bool((ids == ids.flatten()[0]).all()) and ids.shape[-1] > 1
