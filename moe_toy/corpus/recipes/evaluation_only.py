"""multilingual, markup, proceedings: three kinds of text that no model is trained on."""

import ast
import re
from collections.abc import Iterator

from moe_toy.corpus.archives import Archives
from moe_toy.corpus.pinned_packages import PUBLIC_DOMAIN
from moe_toy.corpus.recipes.recipe import Document, Recipe
from moe_toy.corpus.recipes.text import normalise, pieces

LANGUAGES = ("fr", "de", "es", "it", "pl", "ru", "tr", "nl", "pt_BR", "ja")


def multilingual(archives: Archives) -> Iterator[Document]:
    """Django's translations, a document per message catalogue."""
    catalogues = rf"^[^/]+/django/.*/locale/({'|'.join(LANGUAGES)})/LC_MESSAGES/django(js)?\.po$"
    for path, catalogue in archives.files("django", catalogues):
        yield Document(path, "\n".join(translations(catalogue)), "django")


def translations(catalogue: str) -> Iterator[str]:
    """The translated messages of a gettext catalogue, the short ones left out."""
    _header, messages = catalogue.split("\n\n", 1)
    for quoted_lines in re.findall(r'^msgstr(?:\[\d\])? ((?:".*"\n?)+)', messages, flags=re.MULTILINE):
        message = ast.literal_eval('"' + "".join(re.findall(r'"(.*)"', quoted_lines)) + '"')
        if len(message) > 12:
            yield message


def markup(archives: Archives) -> Iterator[Document]:
    for path, text in archives.files("django", r"\.html$", r"/docs/"):
        yield Document(path, text, "django")


def proceedings(archives: Archives) -> Iterator[Document]:
    [(_, text)] = archives.files("brotli", r"testdata/lcet10\.txt$")
    digitiser = r"^.*(Project Gutenberg|\*{5,}|\+{5,}).*$"
    for index, piece in enumerate(pieces(re.sub(digitiser, "", normalise(text), flags=re.MULTILINE), 6000)):
        yield Document(f"lcet10-{index}", piece, "brotli")


RECIPES = (
    Recipe(
        name="multilingual",
        content="Django's translations into ten languages",
        packages=("django",),
        documents=multilingual,
        evaluation_only=True,
    ),
    Recipe(
        name="markup",
        content="Django's page templates",
        packages=("django",),
        documents=markup,
        evaluation_only=True,
    ),
    Recipe(
        name="proceedings",
        content="a workshop of the Library of Congress, 1992",
        packages=("brotli",),
        documents=proceedings,
        licence=PUBLIC_DOMAIN,
        evaluation_only=True,
    ),
)
