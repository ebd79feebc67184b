"""web: the manual of Django, as running technical prose."""

from collections.abc import Iterator

from moe_toy.corpus.archives import Archives
from moe_toy.corpus.recipes.recipe import Document, Recipe
from moe_toy.corpus.recipes.restructured_text import plain_text


def documents(archives: Archives) -> Iterator[Document]:
    for path, text in archives.files("django", r"/docs/(topics|howto|intro|ref|internals|misc)/.*\.txt$"):
        yield Document(path, plain_text(text), "django")


RECIPE = Recipe(
    name="web",
    stands_for="CommonCrawl",
    content="the Django manual",
    packages=("django",),
    documents=documents,
    drop_repeated_paragraphs=True,
)
