"""Which documents of a domain are training text and which are validation text, however few there are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

PARTS = 4
"""Into how many documents a text is cut that is too short for two of `max_characters`."""


class Division(NamedTuple):
    """A document is validation text if its hash is below `threshold`, so equal texts share a split."""

    threshold: float
    max_characters: int
    """A .txt file that is longer is cut into documents."""
    num_documents: int
    """That differ; 2 for more."""
    remark: str = ""
    """How and why it is another than was asked for."""

    def is_validation(self, text: str) -> bool:
        return hash_of(text) < self.threshold


def divide(read: Callable[[int], Iterable[str]], fraction: float, max_characters: int) -> Division:
    """How a domain is divided whose documents are `read(max_characters)`.

    `fraction` is the share of hashes that mean validation; 1 means all. A domain that has no document of one kind gets
    one, that with the smallest or the largest hash; a domain of a single document is cut finer first.
    """
    usual = Division(fraction * 2**64, max_characters, 2)
    if fraction == 1:
        return usual
    cut, (smallest, largest, characters, number) = max_characters, _hashes(read(max_characters), usual.threshold)
    if number == 1 and characters >= PARTS:
        cut = characters // PARTS
        smallest, largest, _, number = _hashes(read(cut), usual.threshold)
    if number < 2:
        return usual._replace(num_documents=number)
    lacking, threshold = None, usual.threshold
    if smallest >= threshold:
        lacking, threshold = "validation", smallest + 1
    elif largest < threshold:
        lacking, threshold = "training", largest
    if cut == max_characters and lacking is None:
        return usual
    finer = f"its text is cut at {cut} characters, as data.source.max_characters leaves one document"
    one = f"one document becomes {lacking} text, as none fell to it"
    remarks = [finer] * (cut != max_characters) + [one] * (lacking is not None)
    return Division(threshold, cut, number, "; ".join(remarks))


def _hashes(texts: Iterable[str], threshold: float) -> tuple[int, int, int, int]:
    """The smallest and the largest hash, characters, and how many different hashes: 2 for more. Stops where both sides
    of the threshold have one."""
    smallest, largest, characters = 2**64, -1, 0
    for text in texts:
        number = hash_of(text)
        smallest, largest, characters = min(smallest, number), max(largest, number), characters + len(text)
        if smallest < threshold <= largest:
            break
    return smallest, largest, characters, 0 if largest < 0 else 1 if smallest == largest else 2


def hash_of(text: str) -> int:
    """A number below 2**64."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
