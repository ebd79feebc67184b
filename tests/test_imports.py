"""The arrows of docs/architecture.md, read from the import statements."""

import ast

import pytest

from tests.paths import ROOT

PACKAGE = ROOT / "moe_toy"
BASE = {"routing", "errors", "distributed", "whole_file"}
MAY_IMPORT = {
    "routing": {"errors", "trace_file"},
    "trace_file": {"errors", "routing"},
    "errors": set(),
    "distributed": set(),
    "whole_file": set(),
    "lock": {"errors"},
    "results": {"errors", "whole_file"},
    "metrics": BASE,
    "balance": BASE,
    "model": BASE | {"balance"},
    "data": BASE,
    "report": BASE | {"metrics", "results"},
    "evaluation": BASE | {"metrics", "model", "balance", "data", "training", "results", "trace_file", "lock"},
    "training": BASE | {"model", "data", "balance", "lock", "report"},
    "callbacks": BASE | {"metrics", "report", "training"},
    "sweep": {"errors", "whole_file", "run_name", "model", "training", "report"},
    "run_name": set(),
    "jobs": {"sweep"},
    "command_line": {"errors", "jobs"},
    "constructor_check": {"errors"},
    "export": BASE | {"model", "balance", "training", "data"},
}
LIBRARIES = {  # where a heavy or framework-bound library may be imported
    "lightning": {"training", "callbacks", "data"},
    "hydra": {"command_line", "jobs"},
    "matplotlib": {"report", "callbacks"},
    "wandb": set(),
    "transformers": {"evaluation", "export"},
    "plotly": {"report"},
}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem != "__init__")


def part_of(path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return modules


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_architecture(path):
    part = part_of(path)
    allowed = MAY_IMPORT.get(part, set()) | {part}
    for module in imported_modules(path):
        library, _, rest = module.partition(".")
        if library == "moe_toy" and rest:
            assert rest.split(".")[0] in allowed, f"{part} may not import {module}"
        assert part in LIBRARIES.get(library, {part}), f"{part} may not import {library}"
