"""github: files of C, C++ and JavaScript source code."""

from collections.abc import Iterator
from typing import NamedTuple

from moe_toy.corpus.archives import Archives
from moe_toy.corpus.recipes.recipe import Document, Recipe, stable_hash
from moe_toy.corpus.recipes.text import without_licence_header


class Language(NamedTuple):
    package: str
    paths: str
    excluded_paths: str
    max_characters: int
    """So that no language fills the domain alone."""


# Excluded: generated tables, minified and vendored files, headers that only forward to others.
LANGUAGES = (
    Language("brotli", r"/c/.*\.(c|h)$", r"dictionary|static_dict|_lut|prefix_inc", 700_000),
    Language("pythran", r"^pythran/(pythonic|xsimd)/.*\.hpp$", r"pythonic/include", 1_000_000),
    Language("django", r"\.js$", r"\.min\.js|/i18n/|unicode|XRegExp|/docs/|qunit", 700_000),
)


def documents(archives: Archives) -> Iterator[Document]:
    for package, paths, excluded_paths, max_characters in LANGUAGES:
        room = max_characters
        files = archives.files(package, paths, excluded_paths)
        for path, source in sorted(files, key=lambda file: stable_hash("github", file[0])):
            longest_line = max(map(len, source.split("\n")))
            if len(source) > 600 and longest_line < 400 and room > 0:
                room -= len(source)
                yield Document(path, without_licence_header(source), package)


RECIPE = Recipe(
    name="github",
    stands_for="GitHub",
    content="C, C++ and JavaScript files",
    packages=tuple(language.package for language in LANGUAGES),
    documents=documents,
    drop_repeated_paragraphs=True,
)
