r"""arxiv: docstrings dense in formulas, without their interface parts, formulas as `$...$`."""

import re
from collections.abc import Iterator

from moe_toy.corpus.archives import Archives
from moe_toy.corpus.recipes.python_source import definitions, is_mathematical
from moe_toy.corpus.recipes.recipe import Document, Recipe
from moe_toy.corpus.recipes.restructured_text import plain_text

PACKAGES = ("pennylane", "sympy", "networkx")

_INTERFACE = (
    r"(Parameters|Args|Arguments|Returns|Yields|Raises|Keyword Args|Other Parameters|See Also|Examples?|Doctests)"
)
_UNDERLINED_SECTION = re.compile(
    rf"^{_INTERFACE}\n[=~-]+\n.*?(?=^\S[^\n]*\n[=~-]{{3,}}\n|\Z)", re.MULTILINE | re.DOTALL
)
_INDENTED_SECTION = re.compile(rf"^\**{_INTERFACE}:?\**:?\n(?:\n|[ \t]+.*\n)*", re.MULTILINE)
_DOCTEST = re.compile(r"^ *(>>>|\.\.\.) .*\n(?:(?!\s*\n).*\n)*", re.MULTILINE)
_CODE_BLOCK = re.compile(r"\.\. code-block::.*\n(?:\n|[ \t]+.*\n)*")
_HEADING = re.compile(r"^([^\n]{3,70})\n[=~-]{3,}$", re.MULTILINE)


def documents(archives: Archives) -> Iterator[Document]:
    for package in PACKAGES:
        for path, name, docstring, _ in definitions(archives, package):
            if not is_mathematical(docstring):
                continue
            prose = mathematical_prose(docstring)
            if is_mathematical(prose):
                title = name.replace("_", " ").strip().capitalize()
                yield Document(path, f"\\section{{{title}}}\n\n{plain_text(prose)}", package)


def mathematical_prose(docstring: str) -> str:
    """The docstring without parameter lists, examples and code; headings as LaTeX sections."""
    prose = _UNDERLINED_SECTION.sub("", docstring)
    prose = _INDENTED_SECTION.sub("", prose + "\n")
    prose = _CODE_BLOCK.sub("", _DOCTEST.sub("", prose))
    return _HEADING.sub(r"\\section{\1}", prose)


RECIPE = Recipe(
    name="arxiv",
    stands_for="arXiv",
    content="docstrings rich in formulas",
    packages=PACKAGES,
    documents=documents,
    drop_repeated_paragraphs=True,
)
