"""The arrows of docs/architecture.md, read from its table and from the import statements."""

import ast
import re
from functools import cache

import pytest

from tests.paths import ROOT

PACKAGE = ROOT / "moe_toy"
LOOSE = {"errors", "distributed", "routing", "results"}
MOST_FLOORS = 8
MOST_LINES = 250
COLUMNS = 4


def rooms_of_the_table() -> dict[str, tuple[set[str], set[str]]]:
    """In the order of the table: which rooms each may import, and which libraries."""
    rooms = {}
    for line in (ROOT / "docs" / "architecture.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == COLUMNS and (name := re.fullmatch(r"`(\w+)`", cells[0])):
            rooms[name[1]] = tuple(set(filter(None, re.split(r",\s*", cell))) for cell in cells[2:])
    return rooms


ROOMS = rooms_of_the_table()
FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path != PACKAGE / "__init__.py"
}
GUARDED = set.union(*(libraries for _, libraries in ROOMS.values()))


def room_of(module: str) -> str:
    return module.partition(".")[0]


@cache
def imported_names(module: str) -> frozenset[str]:
    """Everything that a file imports, anywhere in it, by its full dotted name."""
    names = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


@cache
def imported_files(module: str) -> frozenset[str]:
    """Which of our own files it imports."""
    found = set()
    for name in imported_names(module):
        library, _, ours = name.partition(".")
        while library == "moe_toy" and ours and ours not in FILES:
            ours = ours.rpartition(".")[0]
        if library == "moe_toy" and ours:
            found.add(ours)
    return frozenset(found - {module})


@pytest.mark.parametrize("module", FILES)
def test_imports_follow_the_architecture(module):
    room = room_of(module)
    allowed, libraries = ROOMS[room]
    for name in imported_files(module):
        assert room_of(name) in allowed | {room}, f"{room} may not import {name}"
    for library in {name.partition(".")[0] for name in imported_names(module)} & GUARDED:
        assert library in libraries, f"{room} may not import {library}"


def test_the_table_is_the_house():
    names = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith("_")}
    assert names == set(ROOMS)
    assert {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"} <= LOOSE
    order = list(ROOMS)
    for room, (allowed, _) in ROOMS.items():
        assert all(order.index(name) < order.index(room) for name in allowed), room


def test_no_arrow_of_the_table_is_unused():
    for room, (allowed, _) in ROOMS.items():
        used = {room_of(name) for module in FILES if room_of(module) == room for name in imported_files(module)}
        assert allowed <= used | {room}, f"{room} imports nothing from {sorted(allowed - used)}"


def test_no_files_import_each_other_in_a_circle():
    finished: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path, module])
        if module not in finished:
            for name in imported_files(module):
                walk(name, (*path, module))
            finished.add(module)

    for module in FILES:
        walk(module, ())


def test_the_house_has_few_floors():
    @cache
    def floor(room: str) -> int:
        return 1 + max((floor(name) for name in ROOMS[room][0]), default=0)

    assert max(map(floor, ROOMS)) <= MOST_FLOORS


@pytest.mark.parametrize("module", FILES)
def test_no_file_holds_two_ideas(module):
    assert len(FILES[module].read_text().splitlines()) <= MOST_LINES
