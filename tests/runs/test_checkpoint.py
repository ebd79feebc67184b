"""Whatever takes a checkpoint takes a run directory, and every file is hashed once."""

import os
from collections import Counter
from dataclasses import asdict

import pytest
import torch

from moe_toy.errors import UserError
from moe_toy.runs import checkpoint_file
from moe_toy.runs.checkpoint import Checkpoint
from moe_toy.runs.checkpoint_file import DamagedError, check_intact, save_checkpoint
from moe_toy.runs.run_directory import RunDirectory, add_alias
from tests.model.conftest import make_config  # noqa: F401

CONTENT = {"state_dict": {"model.weight": torch.arange(300.0)}, "global_step": 7}


@pytest.fixture
def run(tmp_path):
    """Steps 1 and 2, the second also as `last.ckpt`, written an hour ago."""
    run = RunDirectory(tmp_path / "run")
    for step in (1, 2):
        save_checkpoint({**CONTENT, "global_step": step}, run.step(step))
        os.utime(run.step(step), (1_000_000 + step, 1_000_000 + step))
    add_alias(run.step(2), "last.ckpt")
    return run


@pytest.fixture
def hashed(monkeypatch):
    """How often each file is hashed, by its inode."""
    count, original = Counter(), checkpoint_file.hash_file

    def counting(path, length):
        count[path.stat().st_ino] += 1
        return original(path, length)

    monkeypatch.setattr(checkpoint_file, "hash_file", counting)
    return count


def test_a_run_directory_stands_for_its_last_checkpoint(run):
    assert Checkpoint.open(run.path).path == run.last
    assert Checkpoint.open_to_continue(run.path).content["global_step"] == 2


def test_its_folder_of_checkpoints_does_too(run):
    assert Checkpoint.open(run.checkpoints).path == run.last


def test_a_run_directory_is_continued_from_its_newest_intact_checkpoint(run):
    run.step(2).write_bytes(b"damaged")  # and by that last.ckpt
    assert Checkpoint.open_to_continue(run.path).path == run.step(1)
    with pytest.raises(UserError, match=r"init_from: .*last\.ckpt is damaged"):
        Checkpoint.open(run.path, "init_from")


@pytest.mark.parametrize("is_there", [True, False])
def test_what_is_no_run_is_told_so(tmp_path, is_there):
    place = tmp_path / "empty"
    if is_there:
        place.mkdir()
    reason = "is a folder without checkpoints/last.ckpt, so no run directory" if is_there else "no such file"
    with pytest.raises(UserError, match=f"init_from: .*{reason}.*; give a checkpoint of train.py or the run directory"):
        Checkpoint.open(place, "init_from")


def test_a_file_is_hashed_once_under_all_its_names(run, hashed):
    for path in (run.path, run.last, run.step(2), run.step(2)):
        Checkpoint.open(path)
    assert list(hashed.values()) == [1]


def test_a_file_that_was_damaged_since_is_hashed_again(run):
    Checkpoint.open(run.last)
    damaged = bytearray(run.last.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    run.last.write_bytes(damaged)
    with pytest.raises(DamagedError, match="checksum"):
        check_intact(run.last)


def test_a_file_that_was_just_written_is_not_taken_for_known(run, hashed):
    run.last.touch()
    for _ in range(2):
        check_intact(run.last)
    assert list(hashed.values()) == [2]


def test_a_checkpoint_is_hashed_while_it_is_written_and_not_read_back(tmp_path, hashed):
    save_checkpoint(CONTENT, tmp_path / "a.ckpt")
    assert not hashed
    check_intact(tmp_path / "a.ckpt")
    assert sum(hashed.values()) == 1


def test_a_checkpoint_of_before_compile_still_names_its_model(tmp_path, make_config):  # noqa: F811
    model = asdict(make_config())
    saved = {key: value for key, value in model.items() if key != "compile"}
    save_checkpoint({**CONTENT, "hyper_parameters": {"model": saved}}, tmp_path / "a.ckpt")
    config = Checkpoint.open(tmp_path / "a.ckpt").model_config
    assert asdict(config) == model | {"compile": "auto"}


def test_errors_of_reading_a_path_are_told_as_such(tmp_path):
    with pytest.raises(UserError, match=r"cannot read x+.* \(File name too long\)"):
        Checkpoint.open("x" * 300)
    with pytest.raises(UserError, match=r"cannot read x+.* \(File name too long\)"):
        Checkpoint.open_to_continue("x" * 300)
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(UserError, match=r"ckpt_path: a link to nothing, given .*link; give a checkpoint"):
        Checkpoint.open(tmp_path / "link")
