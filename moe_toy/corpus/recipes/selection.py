"""From a recipe's documents to the rows of its files: clean, drop duplicates, split by group, cap."""

import hashlib
import re
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from moe_toy.corpus.pinned_packages import PACKAGES
from moe_toy.corpus.recipes.recipe import Document, Recipe, stable_hash
from moe_toy.corpus.recipes.text import hide_email_addresses, normalise, pieces

MAX_BYTES = {"train": 1_900_000, "validation": 210_000, "extra": 180_000}
MIN_LENGTH = 150
SHINGLE_WORDS = 8


class Row(NamedTuple):
    text: str
    domain: str
    source: str
    licence: str


def select(recipe: Recipe, documents: Iterable[Document]) -> dict[str, list[Row]]:
    """The rows of each split; extra sets have one split, named extra.

    Documents come in the order of a hash of their group, so a cap takes a sample and not the head.
    """
    room = {"extra": MAX_BYTES["extra"]} if recipe.evaluation_only else {**MAX_BYTES, "extra": 0}
    room = {split: size for split, size in room.items() if size}
    rows: dict[str, list[Row]] = {split: [] for split in room}
    duplicates = _Duplicates(recipe)
    by_hash = sorted(documents, key=lambda document: stable_hash(recipe.name, document.group))
    for document in by_hash:
        split = split_of(recipe, document.group)
        if room[split] <= 0:
            continue
        text = duplicates.remove_from(hide_email_addresses(normalise(document.text)))
        for piece in pieces(text) if text else ():
            size = len(piece.encode())
            if size >= MIN_LENGTH and room[split] > 0:
                room[split] -= size
                rows[split].append(_row(piece, recipe, document.package))
    return rows


def split_of(recipe: Recipe, group: str) -> str:
    if recipe.evaluation_only:
        return "extra"
    return "validation" if stable_hash("split", recipe.name, group) % 10 == 0 else "train"


class _Duplicates:
    """What a domain has shown so far. Domains share no document, so each is on its own and does not
    depend on which others are assembled."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._paragraphs: set[bytes] = set()
        self._documents: set[bytes] = set()
        self._shingles: set[int] = set()

    def remove_from(self, text: str) -> str | None:
        """The text without repeated paragraphs; None if it is too short or has been seen."""
        if self._recipe.drop_repeated_paragraphs:
            text = "\n\n".join(filter(self._is_new_paragraph, text.split("\n\n")))
        fingerprint = _fingerprint(text)
        if fingerprint in self._documents or len(text) < MIN_LENGTH:
            return None
        self._documents.add(fingerprint)
        if self._recipe.drop_near_duplicates and self._is_near_duplicate(text):
            return None
        return text

    def _is_new_paragraph(self, paragraph: str) -> bool:
        """Short ones always pass: headings and single lines of code repeat in honest text."""
        fingerprint = _fingerprint(paragraph)
        is_new = len(paragraph) < 80 or fingerprint not in self._paragraphs
        self._paragraphs.add(fingerprint)
        return is_new

    def _is_near_duplicate(self, text: str) -> bool:
        """Whether most of a sample of its eight-word windows was seen; if not, they count as seen now."""
        words = text.lower().split()
        windows = (words[i : i + SHINGLE_WORDS] for i in range(len(words) - SHINGLE_WORDS + 1))
        checksums = {zlib.crc32(" ".join(window).encode()) for window in windows}
        sample = {checksum for checksum in checksums if checksum % 8 == 0}
        if len(sample) >= 4 and len(sample & self._shingles) > 0.5 * len(sample):
            return True
        self._shingles |= sample
        return False


def _fingerprint(text: str) -> bytes:
    """Equal for texts that differ in case, spacing and punctuation only."""
    return hashlib.sha1(re.sub(r"\W+", "", text).lower().encode()).digest()


def _row(text: str, recipe: Recipe, package: str | None) -> Row:
    if package is None:
        return Row(text, recipe.name, "generated", "CC0-1.0")
    pinned = PACKAGES[package]
    return Row(text, recipe.name, str(pinned), recipe.licence or pinned.licence)
