"""Docstrings and definitions of Python packages, parsed but never imported."""

import ast
import re
from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from pathlib import PurePosixPath
from typing import NamedTuple

from moe_toy.corpus.archives import Archives

# Tests, generated parsers and tables; for Django also its manual, which is the domain web.
EXCLUDED_PATHS = {
    "pennylane": r"/tests?/|/labs/",
    "sympy": r"/tests?/|benchmarks|_parser|/parsing/",
    "networkx": r"/tests/",
    "django": r"/tests/|/conf/locale/|/migrations/|/docs/",
}
_FORMULA_MARK = re.compile(r":math:|\.\. math::|\$|\\[a-zA-Z]{2,}|\^|_\{")


class Definition(NamedTuple):
    path: str
    name: str
    docstring: str
    source: str | None
    """Of functions only."""


@lru_cache(maxsize=len(EXCLUDED_PATHS))
def definitions(archives: Archives, package: str) -> list[Definition]:
    """Modules, classes and functions that have a docstring. Two domains ask for the same packages, and
    parsing them takes most of their time, hence the cache."""
    found = []
    for path, source in archives.files(package, r"\.py$", EXCLUDED_PATHS[package]):
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):  # templates, or syntax of a later Python
            continue
        lines = source.split("\n")
        for node in _statements(tree):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                continue
            docstring = ast.get_docstring(node)
            if not docstring:
                continue
            is_function = isinstance(node, ast.FunctionDef)
            function = "\n".join(lines[node.lineno - 1 : node.end_lineno]) if is_function else None
            name = PurePosixPath(path).stem if isinstance(node, ast.Module) else node.name
            found.append(Definition(path, name, docstring, function))
    return found


def _statements(module: ast.Module) -> Iterator[ast.AST]:
    """`ast.walk` over statements alone: definitions hide in no expression, and there are few statements."""
    queue: deque[ast.AST] = deque([module])
    while queue:
        node = queue.popleft()
        yield node
        for block in ("body", "handlers", "cases", "orelse", "finalbody"):
            queue.extend(getattr(node, block, ()))


def is_mathematical(docstring: str) -> bool:
    """Long and dense in formulas: such text belongs to the domain arxiv, the others to code."""
    return len(docstring) > 300 and 1000 * len(_FORMULA_MARK.findall(docstring)) / len(docstring) > 1.5
