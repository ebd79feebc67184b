"""The names of files in a run directory are written down once."""

import ast

from moe_toy.runs import run_directory
from tests.paths import ROOT

OWNER = ROOT / "moe_toy" / "runs" / "run_directory.py"
NAMES = {value for name, value in vars(run_directory).items() if name.isupper() and isinstance(value, str)}
THEIRS = {ROOT / "moe_toy" / "evaluation" / "huggingface.py", ROOT / "moe_toy" / "data" / "tokenizer.py"}
"""A Hugging Face folder holds a file called as our tokenizer is."""


def test_no_other_module_writes_the_name_of_a_file_of_a_run():
    assert {"config.yaml", "tokenizer.json", "metrics.csv", "curves.png", "last.ckpt", "checkpoints"} <= NAMES
    found = []
    for path in {*(ROOT / "moe_toy").rglob("*.py"), ROOT / "train.py"} - {OWNER} - THEIRS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in NAMES:
                found.append(f"{path}:{node.lineno} {node.value}")
    assert found == []
