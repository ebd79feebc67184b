"""Routing traces on disk: one safetensors file, checked as a whole when it is written and when it is read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, Json, NonNegativeInt, PositiveInt, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from moe_toy.errors import UserError
from moe_toy.routing import AXES, RoutingTrace, checked_sizes

FORMAT = "moe_toy-routing-trace/1"

_REQUIRED = ("expert_ids", "token_ids")
_UNKNOWN = "unknown_tokens"
"""Metadata of a trace without `token_ids`, so that one whose ids got lost is refused."""

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
    expert_bytes: Json[tuple[PositiveInt, ...]] | None = None
    ordered: Json[bool] = True
    padded: Json[bool] = False
    source: Json[_Source]


def save_trace(trace: RoutingTrace, path: str | os.PathLike[str]) -> None:
    """Write `trace` to `path`, whole or not at all. Expert ids become uint8 or uint16 (int32 where some
    are -1), weights float16."""
    trace.check("the trace to save")
    smallest = torch.uint8 if trace.num_experts <= 2**8 else torch.uint16
    dtypes = {
        "expert_ids": torch.int32 if trace.padded else smallest,
        "token_ids": torch.int32,
        "predicted_ids": torch.int32,
        "domain_ids": torch.int16,
        "prompt_lengths": torch.int32,
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
        "domains": json.dumps([str(name) for name in trace.domains]),
        "source": json.dumps(trace.source, default=_number_or_text),
    }
    if trace.vocab_size is not None:
        metadata["vocab_size"] = str(trace.vocab_size)
    metadata |= {
        name: json.dumps(getattr(trace, name))
        for name, usual in (("expert_bytes", None), ("ordered", True), ("padded", False))
        if getattr(trace, name) != usual
    }
    if trace.token_ids is None:
        metadata[_UNKNOWN] = "true"
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
            tensors = {name: file.get_tensor(name) for name in AXES if name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise UserError(f"there is no trace file {path}; check the path") from error
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is no readable safetensors file ({error}); write the trace again") from error
    check_format(path, metadata)
    for name in _REQUIRED:
        if name not in tensors and not (name == "token_ids" and _UNKNOWN in metadata):
            raise UserError(f"{path}: tensor '{name}' is missing; write the trace again")
    checked_sizes(tensors, str(path))
    trace = RoutingTrace(**{"token_ids": None} | tensors, **_parsed(path, metadata))
    trace.check(str(path))
    return trace


def _number_or_text(value: Any) -> Any:
    """A single number of numpy or torch as such; a type, a path and the like as they are printed."""
    return value.item() if getattr(value, "shape", None) == () else str(value)


def check_format(path: str | os.PathLike[str], metadata: dict[str, str]) -> None:
    """Refuse a trace of another version."""
    if metadata.get("format") != FORMAT:
        raise UserError(
            f"{path}: metadata 'format' is {metadata.get('format')!r}, but this version reads {FORMAT!r}; "
            "write the trace again, with save_trace"
        )


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
