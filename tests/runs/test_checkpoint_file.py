"""A checkpoint is whole or not there, and tells when it was damaged."""

import os
import pickle
import random
import resource
import signal
import time
import zipfile
from pathlib import Path

import pytest
import torch

from moe_toy.errors import UserError
from moe_toy.runs.checkpoint import Checkpoint
from moe_toy.runs.checkpoint_file import DamagedError, load_intact, save_checkpoint
from moe_toy.runs.run_directory import RunDirectory, add_alias
from moe_toy.training.checkpoint_io import AtomicCheckpointIO

CONTENT = {"state_dict": {"model.weight": torch.arange(3000.0)}, "global_step": 7}
KILLS = int(os.environ.get("MOE_TOY_KILLS", "10"))


@pytest.fixture
def path(tmp_path):
    save_checkpoint(CONTENT, tmp_path / "a.ckpt")
    return tmp_path / "a.ckpt"


def test_what_was_saved_is_loaded_also_by_plain_torch(path):
    for loaded in (load_intact(path), torch.load(path, weights_only=True)):
        assert torch.equal(loaded["state_dict"]["model.weight"], CONTENT["state_dict"]["model.weight"])
    assert [file.name for file in path.parent.iterdir()] == ["a.ckpt"]


def test_what_is_trained_on_is_no_longer_the_file_and_shares_what_it_shared(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    save_checkpoint({"state_dict": {"whole": whole, "part": whole[1:, ::2]}}, tmp_path / "a.ckpt")
    state = AtomicCheckpointIO().load_checkpoint(tmp_path / "a.ckpt")["state_dict"]
    with (tmp_path / "a.ckpt").open("r+b") as file:
        file.write(bytes((tmp_path / "a.ckpt").stat().st_size))
    assert torch.equal(state["whole"], whole)
    assert torch.equal(state["part"], whole[1:, ::2])
    state["part"].zero_()
    assert state["whole"].sum() == whole.sum() - whole[1:, ::2].sum()


def test_files_of_plain_torch_are_accepted(tmp_path):
    torch.save(CONTENT, tmp_path / "plain.ckpt")
    assert load_intact(tmp_path / "plain.ckpt")["global_step"] == 7


def test_any_flipped_bit_is_noticed(path):
    whole, draw = path.read_bytes(), random.Random(0)
    ends = range(8 * (len(whole) - 100), 8 * len(whole))
    for bit in [*draw.sample(range(8 * len(whole)), 100), *ends]:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(DamagedError):
            load_intact(path)


def test_any_missing_end_is_noticed(path):
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 97), *range(len(whole) - 100, len(whole))]:
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedError):
            load_intact(path)


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    save_checkpoint({"state_dict": {}, "attack": Attack()}, tmp_path / "a.ckpt")
    (tmp_path / "b.ckpt").write_bytes(pickle.dumps(Attack()))
    for name in ("a.ckpt", "b.ckpt"):
        with pytest.raises(UserError, match="is damaged or not a checkpoint of ours"):
            Checkpoint.open(tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_a_packed_file_that_would_unpack_to_gigabytes_is_refused(path):
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, b"\0" * 10**8 if name.endswith("data/0") else data)
    with pytest.raises(DamagedError, match="declares more data than it holds"):
        load_intact(path)


def test_a_small_tensor_that_claims_to_be_large_is_refused(tmp_path):
    save_checkpoint({"state_dict": {"x": torch.zeros(1).expand(10**10)}}, tmp_path / "a.ckpt")
    with pytest.raises(DamagedError, match="declares more data than it holds"):
        load_intact(tmp_path / "a.ckpt")


def test_the_content_is_on_disk_before_the_name(tmp_path, monkeypatch):
    calls = []
    rename, sync = os.rename, os.fsync
    monkeypatch.setattr(os, "rename", lambda *a: (calls.append("rename"), rename(*a)))
    monkeypatch.setattr(os, "replace", lambda *a: (calls.append("rename"), rename(*a)))
    monkeypatch.setattr(os, "fsync", lambda file: (calls.append("sync"), sync(file)))
    save_checkpoint(CONTENT, tmp_path / "a.ckpt")
    assert calls == ["sync", "rename", "sync"]


def in_a_process(job) -> int:
    """`job` must not compute on large tensors: a forked process has none of torch's threads and would wait for them."""
    if (process := os.fork()) == 0:
        try:
            job()
        finally:
            os._exit(0)
    return process


def test_a_full_disk_leaves_the_old_file(path):
    large = torch.zeros(100_000)

    def save_more_than_fits():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        save_checkpoint({"state_dict": {}, "global_step": large}, path)

    os.waitpid(in_a_process(save_more_than_fits), 0)
    assert load_intact(path)["global_step"] == 7
    assert [file.name for file in path.parent.iterdir()] == ["a.ckpt"]


def test_an_unfinished_folder_of_that_name_gives_way(tmp_path):
    (tmp_path / "step-000000001.ckpt").mkdir()
    save_checkpoint({"step": 1}, tmp_path / "step-000000001.ckpt")
    assert load_intact(tmp_path / "step-000000001.ckpt") == {"step": 1}


def test_the_run_of_a_checkpoint_is_found_through_a_link_and_from_beside_it(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "elsewhere")
    assert RunDirectory.of(tmp_path / "run" / "checkpoints" / "last.ckpt").path == tmp_path / "run"
    (tmp_path / "other" / "checkpoints").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "other" / "checkpoints")
    assert RunDirectory.of(Path("last.ckpt")).path == tmp_path / "other"


def test_killed_at_any_moment_a_run_can_resume(tmp_path):
    """What was saved before the kill is there, or something newer."""
    folder, draw = tmp_path / "checkpoints", random.Random(1)
    folder.mkdir()
    done, step = tmp_path / "done", 0
    done.touch()

    def save_on_and_on():
        for number in range(step + 1, 10**6):
            file = RunDirectory(folder.parent).step(number)
            save_checkpoint({**CONTENT, "global_step": number}, file)
            add_alias(file, "last.ckpt")
            RunDirectory(folder.parent).keep_newest(2, up_to=number)
            with done.open("a") as progress:
                progress.write(f"{number}\n")

    for _ in range(KILLS):
        process = in_a_process(save_on_and_on)
        time.sleep(draw.uniform(0.002, 0.05))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        *_, saved, _torn = ["0", *done.read_text().split("\n")]
        good = Checkpoint.open_newest(RunDirectory(tmp_path), "auto")
        step = good.content["global_step"] if good else 0
        assert step >= int(saved)
    assert step > 0


@pytest.fixture
def folder(tmp_path):
    """Of a run: steps 3 and 12; the clock went backwards in between."""
    folder = tmp_path / "checkpoints"
    for step, time_of_day in ((12, 1_000_000), (3, 2_000_000)):
        save_checkpoint({**CONTENT, "global_step": step}, RunDirectory(folder.parent).step(step))
        os.utime(RunDirectory(folder.parent).step(step), (time_of_day, time_of_day))
    add_alias(RunDirectory(folder.parent).step(12), "last.ckpt")
    return folder


def test_the_newest_is_taken_by_step(folder):
    assert Checkpoint.open_newest(RunDirectory(folder.parent), "auto").path == RunDirectory(folder.parent).step(12)


def test_a_damaged_checkpoint_is_named_and_passed_over(folder, caplog):
    RunDirectory(folder.parent).step(12).write_bytes(b"damaged")  # and by that last.ckpt
    assert Checkpoint.open_newest(RunDirectory(folder.parent), "auto").path == RunDirectory(folder.parent).step(3)
    assert f"{RunDirectory(folder.parent).step(12)} is damaged" in caplog.text


def test_a_run_with_damaged_checkpoints_only_does_not_start_anew(folder):
    for path in folder.iterdir():
        path.write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged"):
        Checkpoint.open_newest(RunDirectory(folder.parent), "auto")


def test_a_directory_without_checkpoints_is_a_new_run(tmp_path):
    assert Checkpoint.open_newest(RunDirectory(tmp_path), "auto") is None


def test_a_future_that_was_given_up_is_forgotten(folder):
    save_checkpoint({**CONTENT, "global_step": 4}, RunDirectory(folder.parent).step(4))
    RunDirectory(folder.parent).keep_newest(2, up_to=4)
    assert sorted(path.name for path in folder.glob("step-*")) == ["step-000000003.ckpt", "step-000000004.ckpt"]
