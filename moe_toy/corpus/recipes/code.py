"""code: Python functions as instruction and response."""

import ast
import textwrap
from collections.abc import Iterator

from moe_toy.corpus.archives import Archives
from moe_toy.corpus.recipes.python_source import EXCLUDED_PATHS, definitions, is_mathematical
from moe_toy.corpus.recipes.recipe import Document, Recipe
from moe_toy.corpus.recipes.restructured_text import plain_text


def documents(archives: Archives) -> Iterator[Document]:
    for package in EXCLUDED_PATHS:
        for path, name, docstring, source in definitions(archives, package):
            is_dunder = name.startswith("__")
            if not source or is_dunder or is_mathematical(docstring) or not 60 <= len(docstring) <= 2500:
                continue
            response = without_docstring(source)
            if response and 120 <= len(response) <= 5000:
                instruction = f"Write the Python function `{name}`.\n{plain_text(docstring).strip()}"
                yield Document(path, f"Instruction: {instruction}\n\nResponse:\n{response}", package)


def without_docstring(source: str) -> str | None:
    """The function alone; None if nothing but the docstring is in it, or it does not parse out of context."""
    source = textwrap.dedent(source)
    try:
        function = ast.parse(source).body[0]
    except (SyntaxError, IndexError):
        return None
    docstring, *statements = function.body
    if not statements:
        return None
    lines = source.splitlines()
    return "\n".join(lines[: docstring.lineno - 1] + lines[docstring.end_lineno :])


RECIPE = Recipe(
    name="code",
    stands_for="OpenCode",
    content="Python functions with their descriptions",
    packages=tuple(EXCLUDED_PATHS),
    documents=documents,
)
