import sys
from pathlib import Path

import pytest

from moe_toy.errors import UserError
from moe_toy.export.arguments import run

KEYS = {"checkpoint": "a file", "out": "a folder"}


def call(monkeypatch, *arguments, command=lambda **_: None):
    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    run(command, "a.module", "What it does.", KEYS)


def test_keys_become_paths(monkeypatch):
    given = {}
    call(monkeypatch, "out=b", "checkpoint=a=1.ckpt", command=lambda **paths: given.update(paths))
    assert given == {"checkpoint": Path("a=1.ckpt"), "out": Path("b")}


def test_help_names_every_key(monkeypatch, capsys):
    call(monkeypatch, "--help")
    assert "python -m a.module checkpoint=... out=..." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out=b"], "checkpoint: is missing; give checkpoint=..., a file"),
        (["out=b", "checkpont=a"], "checkpont: no such key (given checkpont=a); did you mean checkpoint?"),
        (["a.ckpt"], "a.ckpt: not of the form key=value; write python -m a.module checkpoint=... out=..."),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(monkeypatch, capsys, arguments, message):
    with pytest.raises(SystemExit) as exit_info:
        call(monkeypatch, *arguments)
    assert exit_info.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_a_mistake_found_by_the_command_is_told_alike(monkeypatch, capsys):
    def refuse(**_):
        raise UserError("out: exists")

    with pytest.raises(SystemExit):
        call(monkeypatch, "out=b", "checkpoint=a", command=refuse)
    assert capsys.readouterr().err == "error: out: exists\n"
