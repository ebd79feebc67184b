"""Holds a config against the constructors that it names, without building anything."""

import difflib
import importlib
import inspect
import typing
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any

from pydantic import ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from moe_toy.errors import UserError

TYPES = ConfigDict(strict=True, arbitrary_types_allowed=True)


def check_constructors(config: dict[str, Any]) -> None:
    """Raise a `UserError` for the first value that the constructor of its `_target_` would not take: an unknown key, or
    a type or range other than its annotation says."""
    for place, node in targets(config):
        target = _located(node["_target_"], place)
        parameters = inspect.signature(target).parameters
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        types = _parameter_types(target)
        for key, value in node.items():
            if key.startswith("_") and key.endswith("_"):
                continue  # Hydra's own
            if key not in parameters and not takes_any:
                nearest = difflib.get_close_matches(key, parameters, n=1)
                hint = f"did you mean {place}.{nearest[0]}?" if nearest else "remove it"
                raise UserError(f"{place}.{key}: no such key (given {key}={value}); {hint}")
            if key in types and not list(targets(value)):
                _check_value(f"{place}.{key}", value, types[key])


def targets(config: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every part of a config that names a constructor, with its key."""
    if isinstance(config, dict):
        if "_target_" in config:
            yield place, config
        for key, value in config.items():
            yield from targets(value, f"{place}.{key}" if place else str(key))
    elif isinstance(config, list):
        for index, value in enumerate(config):
            yield from targets(value, f"{place}[{index}]")


def _located(target: Any, place: str) -> Callable[..., Any]:
    module, _, name = str(target).rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{place}._target_: there is no {target}; give the full name of a class") from error


@lru_cache
def _parameter_types(target: Callable[..., Any]) -> dict[str, TypeAdapter]:
    """By parameter; without those whose annotation pydantic cannot read."""
    function = target.__init__ if inspect.isclass(target) else target
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError:  # names that only a type checker imports
        hints = inspect.get_annotations(function)
    types = {}
    for name, hint in hints.items():
        with suppress(PydanticSchemaGenerationError, PydanticUserError, NameError):
            types[name] = TypeAdapter(hint, config=TYPES)
    return types


def _check_value(place: str, value: Any, type_: TypeAdapter) -> None:
    try:
        type_.validate_python(value)
    except ValidationError as error:
        rules = dict.fromkeys(finding["msg"][0].lower() + finding["msg"][1:] for finding in error.errors())
        raise UserError(f"{place}: {' or '.join(rules)}, given {value!r}; pass {place}=... with such a value") from None
