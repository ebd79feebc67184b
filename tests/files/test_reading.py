"""What the system does not let us read is told as such, by whatever reads files of a user's."""

import errno
import io
import os
import sys
from pathlib import Path

import pandas as pd
import pytest

from moe_toy.corpus import corpus
from moe_toy.data.domains import FileDomains
from moe_toy.data.readers import check_file, read_documents
from moe_toy.errors import UserError
from moe_toy.evaluation.output_folder import IDENTITY, OutputFolder
from moe_toy.evaluation.run_text import recorded_fingerprint
from moe_toy.export.arguments import run
from moe_toy.files.reading import UnreadableError, reading
from moe_toy.pictures import curves
from moe_toy.report.sweep_files import read_metrics
from moe_toy.results import Results
from moe_toy.runs.checkpoint import Checkpoint
from moe_toy.sweep.record import RECORD, Record, State, read_record
from tests.reliability.reading import write_own_checkpoint


@pytest.fixture
def forbid(monkeypatch):
    """`forbid("metrics.csv", errno.EIO)`: from now on the system gives no such file; a test that is root can forbid
    nothing by other means."""

    def forbid(name: str, number: int = errno.EACCES) -> None:
        def refusing(give):
            def opened(file, *arguments, **options):
                if isinstance(file, str | Path) and Path(file).name == name:
                    raise OSError(number, os.strerror(number), str(file))
                return give(file, *arguments, **options)

            return opened

        monkeypatch.setattr("builtins.open", refusing(open))
        monkeypatch.setattr(io, "open", refusing(io.open))
        monkeypatch.setattr(os, "scandir", refusing(os.scandir))

    return forbid


def test_errors_with_a_number_are_of_the_system():
    with pytest.raises(UnreadableError, match=r"^cannot read b \(Input/output error\); make it readable"), reading("a"):
        raise OSError(errno.EIO, "what a library says", "b")
    with pytest.raises(FileNotFoundError), reading("a"):
        raise FileNotFoundError(errno.ENOENT, "not there", "a")
    with pytest.raises(OSError, match=r"^damaged$"), reading("a"):
        raise OSError("damaged")


def an_arm(path: Path) -> None:
    Record(State.DONE, 1.0).write(path.parent)


def text(path: Path) -> None:
    path.write_text("{}")


@pytest.mark.parametrize(
    ("name", "write", "read"),
    [
        ("own.ckpt", write_own_checkpoint, Checkpoint.open),
        ("a.txt", text, check_file),
        ("a.jsonl", text, lambda path: list(read_documents(path, 100))),
        ("summary.json", text, lambda path: Results.load(path.parent)),
        ("text.json", text, lambda path: recorded_fingerprint(path.parent)),
        ("metrics.csv", text, lambda path: read_metrics(path.parent)),
        ("metrics.csv", text, lambda path: curves.save_curves(path.parent)),
        (IDENTITY, text, lambda path: OutputFolder(path.parent).check({})),
        (RECORD, an_arm, lambda path: read_record(path.parent)),
    ],
)
def test_what_cannot_be_read_is_neither_damaged_nor_written(tmp_path, forbid, name, write, read):
    write(tmp_path / name)
    for number in (errno.EACCES, errno.EIO, errno.EISDIR):
        forbid(name, number)
        with pytest.raises(UserError, match=rf"^cannot read \S+{name} \({os.strerror(number)}\); make it readable"):
            read(tmp_path / name)


def test_a_domain_whose_folder_cannot_be_listed_is_not_left_out(tmp_path, forbid):
    for domain in ("open", "closed"):
        (tmp_path / domain).mkdir()
        (tmp_path / domain / "a.txt").write_text("one two three")
    source = {"path": tmp_path, "validation_fraction": 0.5, "max_characters": 100}
    assert FileDomains(**source).domains == ("closed", "open")
    forbid("closed")
    with pytest.raises(UserError, match=r"cannot read \S+closed \(Permission denied\)"):
        _ = FileDomains(**source).domains


# Every entry point


def line_of(monkeypatch, capsys, call, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    with pytest.raises(SystemExit) as stop:
        call()
    assert stop.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    return line


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "there")


def test_a_full_disk_is_one_line_of_every_entry_point(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(corpus, "print_table", full)
    monkeypatch.setattr(corpus, "assemble", lambda *_, **__: tmp_path)
    monkeypatch.setattr(curves, "save_atomically", full)
    pd.DataFrame({"step": [1], "val/loss": [2.0]}).to_csv(tmp_path / "metrics.csv")
    told = "error: cannot write there (No space left on device); make room, or choose another "
    assert line_of(monkeypatch, capsys, corpus.main) == f"{told}--root\n"
    assert line_of(monkeypatch, capsys, curves.main, str(tmp_path)) == f"{told}run directory\n"
    export = lambda: run(full, "a.module", "What it does.", {})  # noqa: E731
    assert line_of(monkeypatch, capsys, export) == f"{told}folder\n"


@pytest.mark.parametrize("content", ["", "step,a\n1,2,3\n1,2,3,4\n", "a,b\n1,2\n", "step\nx\n"])
def test_a_metrics_csv_of_something_else_is_one_line(monkeypatch, capsys, tmp_path, content):
    (tmp_path / "metrics.csv").write_text(content)
    assert "is not what a run wrote" in line_of(monkeypatch, capsys, curves.main, str(tmp_path))
