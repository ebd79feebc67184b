"""Routing traces on disk: one safetensors file, checked as a whole when it is written and when it is read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, Json, NonNegativeInt, PositiveInt, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from moe_toy.errors import UserError
from moe_toy.routing import RoutingTrace

FORMAT = "moe_toy-routing-trace/1"

_AXES = {
    "expert_ids": ("layer", "batch", "seq", "k"),
    "token_ids": ("batch", "seq"),
    "predicted_ids": ("batch", "seq"),
    "domain_ids": ("batch",),
    "weights": ("layer", "batch", "seq", "k"),
}
_REQUIRED = ("expert_ids", "token_ids")
_MOST = {"num_experts": 2**16, "vocab_size": 2**31, "domains": 2**15}  # what the integers of a file can number

_Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Source(BaseModel):
    """What evaluations read of a trace's provenance; the rest is free."""

    model_config = ConfigDict(strict=True, extra="allow")

    total_parameters: _Count | None = None
    active_parameters: _Count | None = None
    loss: dict[str, float | None] | None = None
    bits_per_byte: dict[str, float | None] | None = None


class _Metadata(BaseModel):
    """safetensors keeps strings, so each field is JSON."""

    model_config = ConfigDict(strict=True)

    num_experts: Json[PositiveInt]
    vocab_size: Json[PositiveInt] | None = None
    layer_ids: Json[tuple[NonNegativeInt, ...]]
    domains: Json[tuple[str, ...]]
    source: Json[_Source]


def save_trace(trace: RoutingTrace, path: str | os.PathLike[str]) -> None:
    """Write `trace` to `path`, whole or not at all. Expert ids become uint8 or uint16, weights float16."""
    check_trace(trace, "the trace to save")
    dtypes = {
        "expert_ids": torch.uint8 if trace.num_experts <= 2**8 else torch.uint16,
        "token_ids": torch.int32,
        "predicted_ids": torch.int32,
        "domain_ids": torch.int16,
        "weights": torch.float16,
    }
    tensors = {
        name: tensor.detach().cpu().to(dtype).contiguous()
        for name, dtype in dtypes.items()
        if (tensor := getattr(trace, name)) is not None
    }
    metadata = {
        "format": FORMAT,
        "num_experts": str(trace.num_experts),
        "layer_ids": json.dumps(trace.layer_ids),
        "domains": json.dumps(trace.domains),
        "source": json.dumps(trace.source),
    }
    if trace.vocab_size is not None:
        metadata["vocab_size"] = str(trace.vocab_size)
    path = Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        save_file(tensors, partial, metadata)
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write the trace to {path}: {error}; choose a directory you can write to") from error
    finally:
        partial.unlink(missing_ok=True)


def load_trace(path: str | os.PathLike[str]) -> RoutingTrace:
    """Read a trace that `save_trace` wrote; a damaged or inconsistent file is refused."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in _AXES if name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise UserError(f"there is no trace file {path}; check the path") from error
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is no readable safetensors file ({error}); write the trace again") from error
    check_format(path, metadata)
    for name in _REQUIRED:
        if name not in tensors:
            raise UserError(f"{path}: tensor '{name}' is missing; write the trace again")
    _checked_sizes(tensors, str(path))
    trace = RoutingTrace(**tensors, **_parsed(path, metadata))
    check_trace(trace, str(path))
    return trace


def check_format(path: str | os.PathLike[str], metadata: dict[str, str]) -> None:
    """Refuse a trace of another version."""
    if metadata.get("format") != FORMAT:
        raise UserError(
            f"{path}: metadata 'format' is {metadata.get('format')!r}, but this version reads {FORMAT!r}; "
            "write the trace with RoutingTrace.save"
        )


def check_trace(trace: RoutingTrace, where: str) -> None:
    """Raise `UserError`, naming field and position, unless shapes agree, all ids are in range and no token names an
    expert twice."""
    tensors = {name: tensor for name in _AXES if (tensor := getattr(trace, name)) is not None}
    sizes = _checked_sizes(tensors, where)
    if len(trace.layer_ids) != sizes["layer"]:
        raise UserError(
            f"{where}: 'layer_ids' names {len(trace.layer_ids)} layers, but 'expert_ids' has {sizes['layer']}; "
            "name the transformer layer of each row"
        )
    for name, number in (
        ("num_experts", trace.num_experts),
        ("vocab_size", trace.vocab_size or 0),
        ("domains", len(trace.domains)),
    ):
        if number > _MOST[name]:
            raise UserError(
                f"{where}: '{name}' counts {number}, more than the {_MOST[name]} that a trace file can number; "
                "write the trace again"
            )
    if not 1 <= sizes["k"] <= trace.num_experts:
        raise UserError(
            f"{where}: 'expert_ids' has {sizes['k']} experts per token, but num_experts is {trace.num_experts}; "
            "a token has between 1 and num_experts"
        )
    _check_range(trace, "expert_ids", trace.num_experts, "num_experts", where)
    for name in ("token_ids", "predicted_ids"):
        _check_range(trace, name, trace.vocab_size or _MOST["vocab_size"], "vocab_size", where)
    _check_range(trace, "domain_ids", len(trace.domains) or _MOST["domains"], "the number of 'domains'", where)
    _check_no_expert_twice(trace, where)


def _checked_sizes(tensors: dict[str, Tensor], where: str) -> dict[str, int]:
    """The size of every axis, on which all tensors must agree."""
    sizes: dict[str, int] = {}
    for name, tensor in tensors.items():
        axes = _AXES[name]
        if tensor.ndim != len(axes):
            raise UserError(
                f"{where}: '{name}' has {tensor.ndim} axes {tuple(tensor.shape)}, not ({', '.join(axes)}); "
                "write the trace again"
            )
        for axis, size in zip(axes, tensor.shape, strict=True):
            if sizes.setdefault(axis, size) != size:
                raise UserError(
                    f"{where}: '{name}' has {size} on axis {axis}, but the tensors before it have {sizes[axis]}; "
                    "write the trace again"
                )
        if tensor.is_floating_point() != (name == "weights"):
            raise UserError(f"{where}: '{name}' has type {tensor.dtype}; ids are integers, weights are floats")
    return sizes


def _check_range(trace: RoutingTrace, name: str, limit: int, meaning: str, where: str) -> None:
    tensor = getattr(trace, name)
    if tensor is None or tensor.numel() == 0:
        return
    ids = tensor.cpu().numpy()  # torch lacks min and max for uint16
    for extreme in (ids.argmin(), ids.argmax()):
        value = int(ids.flat[extreme])
        if not 0 <= value < limit:
            rule = "must not be negative" if value < 0 else f"is not below {meaning} ({limit})"
            place = _place(name, np.unravel_index(extreme, ids.shape))
            raise UserError(f"{where}: '{name}' holds {value} at {place}, which {rule}; write the trace again")


def _check_no_expert_twice(trace: RoutingTrace, where: str) -> None:
    for layer, ids in enumerate(trace.expert_ids.cpu()):
        by_rank = np.ascontiguousarray(np.moveaxis(ids.numpy(), -1, 0))
        for rank in range(1, len(by_rank)):
            same = (by_rank[:rank] == by_rank[rank]).any(0)
            if same.any():
                at = np.unravel_index(same.argmax(), same.shape)
                place = _place("expert_ids", (layer, *at))
                expert = int(by_rank[rank][at])
                raise UserError(f"{where}: 'expert_ids' names expert {expert} twice at {place}; write the trace again")


def _place(name: str, index: tuple[Any, ...]) -> str:
    return ", ".join(f"{axis} {int(i)}" for axis, i in zip(_AXES[name], index, strict=False))


def _parsed(path: Any, metadata: dict[str, str]) -> dict[str, Any]:
    """The fields of the metadata from their JSON texts."""
    try:
        parsed = _Metadata(**metadata)
    except ValidationError as error:
        found = error.errors()[0]
        name, *inside = map(str, found["loc"])
        where = f"'{name}' ({'.'.join(inside)})" if inside else f"'{name}'"
        raise UserError(
            f"{path}: metadata {where} is {metadata.get(name, 'absent')[:60]!r}, but: {found['msg']}; "
            "write the trace again"
        ) from None
    return dict(parsed) | {"source": parsed.source.model_dump(exclude_unset=True)}
