"""The names of files in a run directory are written down once, and the best checkpoint stays."""

import ast

import pytest

from moe_toy.runs import run_directory
from moe_toy.runs.run_directory import RunDirectory, add_alias
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


def checkpoint_of(run: RunDirectory, step: int, *, is_folder: bool) -> None:
    path = run.step(step)
    path.parent.mkdir(exist_ok=True)
    if is_folder:
        path.mkdir()
    (path / "meta.pt" if is_folder else path).write_text(str(step))


@pytest.mark.parametrize("is_folder", [False, True], ids=["file", "shards"])
def test_the_best_checkpoint_outlives_those_of_its_time(tmp_path, is_folder):
    run = RunDirectory(tmp_path)
    for step, is_best in enumerate([True, False, False, True, False, False], start=1):
        checkpoint_of(run, step, is_folder=is_folder)
        if is_best:
            add_alias(run.step(step), "best.ckpt")
        run.keep_newest(2, up_to=step)
        best = run.checkpoints / "best.ckpt"
        assert (best / "meta.pt" if is_folder else best).read_text() == ("1" if step < 4 else "4")
    assert len(run.candidates()) == 3 + is_folder  # two by step and the best, also under its step where it is a folder


def test_shards_of_a_future_that_was_given_up_go_with_their_name(tmp_path):
    run = RunDirectory(tmp_path)
    for step in (1, 9):
        checkpoint_of(run, step, is_folder=True)
    add_alias(run.step(9), "best.ckpt")
    run.keep_newest(2, up_to=1)
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-000000001.ckpt"]
