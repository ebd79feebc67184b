"""The schemes that are part of a model, by the names that checkpoints keep."""

from typing import Any

from moe_toy.locality.base import LocalityScheme
from moe_toy.locality.document_pool import DocumentPool
from moe_toy.locality.residency import Residency

LIMITS: dict[str, type[LocalityScheme]] = {"residency": Residency, "document_pool": DocumentPool}


def limit_of(settings: dict[str, Any]) -> LocalityScheme:
    """The scheme with these `settings`; without any, routing is free. Raises `KeyError`, `TypeError` or `ValueError`
    for settings of no scheme: they may come from somebody else."""
    if not settings:
        return LocalityScheme()
    return LIMITS[settings["scheme"]](**{key: value for key, value in settings.items() if key != "scheme"})
