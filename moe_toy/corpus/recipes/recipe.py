"""What a recipe is: where a domain's documents come from and how they are selected."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from moe_toy.corpus.archives import Archives


class Document(NamedTuple):
    group: str
    """Documents of one group (a file, a country, a chapter) are never split over train and validation."""
    text: str
    package: str | None
    """None where the text is generated."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    name: str
    content: str
    """What the text is, in a few words."""
    packages: tuple[str, ...]
    documents: Callable[[Archives], Iterator[Document]]
    stands_for: str = ""
    """The source of real training mixtures whose place the domain takes."""
    licence: str | None = None
    """Of the text, where it is not that of the package."""
    drop_repeated_paragraphs: bool = False
    drop_near_duplicates: bool = True
    evaluation_only: bool = False


def stable_hash(*parts: str) -> int:
    """The same number on every machine, unlike `hash`: every choice in a recipe is made by it."""
    return int.from_bytes(hashlib.sha1("|".join(parts).encode()).digest()[:8], "big")
