"""Routed experts as vLLM and SGLang return them: integers [token, layer, k] beside the ids of the tokens.

- `.npz` or `.safetensors`: arrays `routed_experts` and, if known, `token_ids`; with several requests one after
  another also `lengths`, the number of rows of each, and if known `prompt_lengths`, how many of these were the prompt.
- `.npy`: the routed experts alone; the token ids, if known, lie beside it in `NAME.tokens.npy`.

Requests may also be padded, [request, token, layer, k], with -1 or `lengths`. The last token of a generation was never
fed to the model, so there may be one id more than rows in each request.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from safetensors.numpy import load

from moe_toy.errors import UserError
from moe_toy.traces.contents import MOST_PACKED, contents, head
from moe_toy.traces.requests import Requests

ENDINGS = (".safetensors", ".npz", ".npy")
ARRAYS = ("routed_experts", "token_ids", "lengths", "prompt_lengths")
MOST_TOKENS = 2**31
NPY, ZIP = b"\x93NUMPY", b"PK"


def recognise(start: bytes) -> bool:
    return start.startswith((NPY, ZIP)) or start[5:9] == b"\0\0\0{"


def read(path: Path) -> Requests:
    arrays = _read(path)
    experts, token_ids = arrays["routed_experts"], arrays.get("token_ids")
    if experts.ndim not in (3, 4) or not experts.shape[-1]:
        raise UserError(f"{path}: 'routed_experts' has shape {experts.shape}; it must be [token, layer, k]")
    if experts.ndim == 4:
        experts, token_ids, arrays["lengths"] = _packed(path, experts, token_ids, arrays.get("lengths"))
    lengths = arrays.get("lengths", np.array([len(experts)])).reshape(-1).astype(np.int64)  # they are added to
    _check_lengths(path, lengths, len(experts))
    if token_ids is not None:
        token_ids = _fed_tokens(path, token_ids.reshape(-1), lengths, len(experts))
    prompts = arrays.get("prompt_lengths")
    if prompts is not None and (prompts.shape != lengths.shape or (prompts < 0).any() or (prompts > lengths).any()):
        raise UserError(f"{path}: 'prompt_lengths' must give, for each of 'lengths', a number between 0 and it")
    ends = np.cumsum(lengths)[:-1]
    return Requests(
        experts=np.split(experts.astype(np.int64), ends),
        rows=np.split(np.broadcast_to(np.arange(len(experts))[:, None], experts.shape[:2]), ends),
        layer_ids=tuple(range(experts.shape[1])),
        token_ids=None if token_ids is None else np.split(token_ids, ends),
        prompt_lengths=None if prompts is None else prompts.tolist(),
    )


def _packed(
    path: Path, experts: np.ndarray, token_ids: np.ndarray | None, lengths: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Padded requests one after another, without the padding."""
    if token_ids is not None and token_ids.shape != experts.shape[:2]:
        raise UserError(f"{path}: 'token_ids' has shape {token_ids.shape}; padded requests need {experts.shape[:2]}")
    if lengths is None:
        there = (experts >= 0).any((2, 3))
        lengths = np.where(there.any(1), there.shape[1] - there[:, ::-1].argmax(1), 0)
    if lengths.shape != (len(experts),) or lengths.min(initial=0) < 0 or lengths.max(initial=0) > experts.shape[1]:
        raise UserError(f"{path}: 'lengths' must give {len(experts)} numbers between 0 and {experts.shape[1]}")
    kept = np.arange(experts.shape[1]) < lengths[:, None]
    return experts[kept], None if token_ids is None else token_ids[kept], lengths


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        start = head(path)
        if start.startswith(NPY):
            arrays = {"routed_experts": _from_bytes(path)}
            if (beside := tokens_beside(path)) is not None:
                arrays["token_ids"] = _from_bytes(beside)
        else:
            arrays = _unpacked(contents(path)) if start.startswith(ZIP) else load(contents(path))
    except UserError:
        raise
    except Exception as error:  # numpy, zipfile, zlib and safetensors each raise their own kinds for a damaged file
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}); save the arrays again") from error
    if "routed_experts" not in arrays:
        raise UserError(f"{path} has no array 'routed_experts', only {', '.join(sorted(arrays)) or 'none'}; add it")
    for name in ARRAYS:
        if name in arrays and not np.issubdtype(arrays[name].dtype, np.integer):
            raise UserError(f"{path}: '{name}' has type {arrays[name].dtype}; it must be integers")
    return arrays


def tokens_beside(path: Path) -> Path | None:
    """The file of token ids that is read with `path`, where there is one."""
    named = path.with_name(path.name.removesuffix(".gz").removesuffix(".npy") + ".tokens.npy")
    beside = named.with_name(f"{named.name}.gz"), named
    return next((file for file in beside if os.path.exists(file)), None)  # False for a name that is too long


def _unpacked(content: bytes) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = archive.infolist()
        if sum(part.file_size for part in parts) > MOST_PACKED * len(content):
            raise ValueError(f"it unpacks to more than {MOST_PACKED} times its size")
        if any(part.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for part in parts):
            raise ValueError("it is packed in a way that numpy does not use")  # and which may ask for gigabytes
        arrays = {}
        for part in parts:
            with archive.open(part) as file:
                arrays[part.filename.removesuffix(".npy")] = _array(file, part.file_size)
        return arrays


def _from_bytes(path: Path) -> np.ndarray:
    content = contents(path)
    return _array(io.BytesIO(content), len(content))


def _array(file: io.BufferedIOBase | io.BytesIO, size: int) -> np.ndarray:
    """As numpy reads it, which makes room for all that is declared before it looks whether that is there."""
    if (version := npy.read_magic(file)) != (1, 0):  # later ones are for headers of more than 64 KB
        raise ValueError(f"it is of version {version}, not (1, 0)")
    shape, _, dtype = npy.read_array_header_1_0(file)
    if math.prod(shape) * dtype.itemsize > size:
        raise ValueError("it declares more data than it holds")
    file.seek(0)
    return npy.read_array(file, allow_pickle=False)


def _check_lengths(path: Path, lengths: np.ndarray, rows: int) -> None:
    if lengths.min(initial=0) < 0 or lengths.max(initial=0) > rows:
        raise UserError(f"{path}: 'lengths' must be between 0 and the {rows} rows of routed experts")
    if lengths.sum() != rows:
        raise UserError(f"{path}: 'lengths' sum to {lengths.sum()}, but there are {rows} rows of routed experts")


def _fed_tokens(path: Path, token_ids: np.ndarray, lengths: np.ndarray, rows: int) -> np.ndarray:
    """The ids that belong to rows: without the last one of each sequence where it has no row."""
    if len(token_ids) == rows + len(lengths):
        token_ids = np.delete(token_ids, np.cumsum(lengths + 1) - 1)
    if len(token_ids) != rows:
        raise UserError(
            f"{path}: {len(token_ids)} token ids for {rows} rows of routed experts; give one for each row, "
            "or one more in each sequence"
        )
    wrong = np.flatnonzero((token_ids < 0) | (token_ids >= MOST_TOKENS))
    if len(wrong):
        raise UserError(
            f"{path}: row {wrong[0]} has the token id {token_ids[wrong[0]]}, which must not be negative, nor 2³¹ or "
            "more; save it again, or leave 'token_ids' out"
        )
    return token_ids
