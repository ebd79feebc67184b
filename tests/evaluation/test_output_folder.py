"""Nothing that lies in a folder is overwritten by another evaluation."""

import errno
from pathlib import Path

import pytest

from moe_toy.errors import UserError
from moe_toy.evaluation.output_folder import OutputFolder

IDENTITY = {"target": {"kind": "trace", "source": "a.safetensors"}, "data": None}


@pytest.mark.parametrize("made", [False, True])
def test_a_new_or_empty_folder_is_claimed(tmp_path, made):
    folder = OutputFolder(tmp_path / "out")
    if made:
        folder.path.mkdir()
    folder.write_identity(IDENTITY)
    folder.check(IDENTITY)  # the same evaluation may go on


def test_another_target_is_refused(tmp_path):
    folder = OutputFolder(tmp_path)
    folder.write_identity(IDENTITY)
    other = {"target": {"kind": "trace", "source": "b.safetensors"}, "data": None}
    with pytest.raises(UserError, match=r"another evaluation \(target.source a.safetensors there, b.safetensors now\)"):
        folder.write_identity(other)


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "config.yaml").write_text("of a run")
    with pytest.raises(UserError, match="holds files of something else"):
        OutputFolder(tmp_path).write_identity(IDENTITY)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_start_that_could_not_write_leaves_a_free_folder(tmp_path, monkeypatch):
    def full(self, text):
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space left"):
            OutputFolder(tmp_path).write_identity(IDENTITY)
    assert not list(tmp_path.iterdir())


def test_a_start_that_was_killed_leaves_a_free_folder(tmp_path):
    (tmp_path / "evaluation.json.part").write_text('{"target"')
    (tmp_path / ".lock").touch()
    folder = OutputFolder(tmp_path)
    folder.write_identity(IDENTITY)
    folder.check(IDENTITY)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "evaluation.json"]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="is a file; choose a folder"):
        OutputFolder(tmp_path / "out").check(IDENTITY)
