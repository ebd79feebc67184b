"""Checkpoints written during the next steps are those that would have been written at once, and as safe."""

import errno
import os
import signal
import threading
import time

import pytest
import torch

from moe_toy.checks.mistakes import report_user_errors
from moe_toy.runs import checkpoint_file
from moe_toy.runs.run_directory import RunDirectory
from moe_toy.sweep.arm import identify
from moe_toy.training import background_writer
from moe_toy.training.background_writer import BackgroundWriter, copy_to_host
from moe_toy.training.lit_moe import LitMoE
from tests.reliability.compare import assert_identical, assert_same_end
from tests.reliability.test_resume_ranks import SHORT as TWO_RANKS
from tests.reliability.test_resume_ranks import on_two_ranks  # noqa: F401

BACKGROUND = "callbacks.checkpoint.in_background=true"
SHORT = ["trainer.max_steps=6", "trainer.val_check_interval=3", "callbacks=none", "balance=loss_free"]
SHORT += ["callbacks.checkpoint.every_n_steps=1"]
KEEP_ALL = "callbacks.checkpoint.keep_last=9"


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """The run whose checkpoints are all written at once."""
    return run(tmp_path_factory.mktemp("whole") / "run", *SHORT, KEEP_ALL)


@pytest.fixture
def writes(monkeypatch):
    """`writes(hook)`: call `hook(step)` before a checkpoint is written, on the thread that writes it."""
    write = checkpoint_file._save

    def before(hook) -> None:
        def save(content, file):
            hook(content["global_step"], file)
            write(content, file)

        monkeypatch.setattr(checkpoint_file, "_save", save)

    return before


def in_background() -> bool:
    return threading.current_thread() is not threading.main_thread()


def files(run_dir) -> list[str]:
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


def steps(run_dir) -> list[int]:
    return sorted(int(path.stem[5:]) for path in (run_dir / "checkpoints").glob("step-*.ckpt"))


def load(run_dir, step: int):
    """But for clocks, and for the path of the run."""
    content = torch.load(RunDirectory(run_dir).step(step), weights_only=True)
    del content["loops"], content["loggers"]
    return content


def test_every_checkpoint_holds_the_state_of_its_step(run, whole, writes, tmp_path):
    """Also where the next step is done before the file is begun."""
    written = []

    def slowly(step, file):
        written.append((step, in_background()))
        time.sleep(0.1)

    writes(slowly)
    later = run(tmp_path / "run", *SHORT, KEEP_ALL, BACKGROUND)
    assert files(later) == files(whole)
    for step in range(1, 7):
        assert_identical(load(whole, step), load(later, step))
    assert_same_end(whole, later)
    assert {step for step, is_later in written if is_later} == {1, 2, 3, 4, 5}
    assert written[-1] == (6, False)  # no step follows it


def test_old_files_are_removed_and_names_kept(run, tmp_path):
    later = run(tmp_path / "run", *SHORT, BACKGROUND)
    assert steps(later) == [5, 6]
    assert files(later) == ["best.ckpt", "last.ckpt", "step-000000005.ckpt", "step-000000006.ckpt"]
    assert torch.load(later / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 6


def test_the_last_name_is_the_old_file_until_the_new_one_is_whole(run, at_call, writes, tmp_path):
    two_is_begun, go_on, seen = threading.Event(), threading.Event(), {}

    def wait_at_the_second(step, file):
        if step == 2 and in_background():
            two_is_begun.set()
            assert go_on.wait(60)

    def look():
        assert two_is_begun.wait(60)  # a step is trained while the file is open
        last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
        seen.update(last=last["global_step"], steps=steps(tmp_path / "run"))
        go_on.set()

    writes(wait_at_the_second)
    at_call("training_step", 3, look)
    run(tmp_path / "run", *SHORT, BACKGROUND)
    assert seen == {"last": 1, "steps": [1]}
    assert steps(tmp_path / "run") == [5, 6]


def test_one_is_written_at_a_time(run, writes, tmp_path):
    open_files, most = [], []

    def count(step, file):
        open_files.append(step)
        time.sleep(0.05)
        most.append(sum(thread.name == "checkpoint" for thread in threading.enumerate()))

    writes(count)
    run(tmp_path / "run", *SHORT, BACKGROUND)
    assert max(most) == 1
    assert open_files == sorted(open_files)


def test_killed_while_writing_a_run_goes_on_from_the_one_before(run, whole, writes, tmp_path):
    def kill_at_the_third(step, file):
        file.write(b"half")
        file.flush()
        if step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        file.file.seek(0)
        file.sha256 = checkpoint_file.hashlib.sha256()

    if (process := os.fork()) == 0:
        try:
            writes(kill_at_the_third)
            run(tmp_path / "run", *SHORT, KEEP_ALL, BACKGROUND)
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGKILL
    assert steps(tmp_path / "run") == [1, 2]
    assert (tmp_path / "run" / "checkpoints" / "step-000000003.ckpt.part").exists()
    writes(lambda step, file: None)
    run(tmp_path / "run", *SHORT, KEEP_ALL, BACKGROUND, "ckpt_path=auto")
    assert not list((tmp_path / "run" / "checkpoints").glob("*.part"))
    assert_same_end(whole, tmp_path / "run")


def fill_up_at(failing: int):
    def full(step, file):
        if step == failing:
            file.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.file.name)

    return full


@pytest.mark.parametrize("failing", [2, 5], ids=["in the middle", "before the last"])
def test_a_disk_that_fills_up_ends_the_run_as_it_does_at_once(run, writes, tmp_path, capsys, failing):
    lines = []
    for folder, more in (("now", []), ("later", [BACKGROUND])):
        writes(fill_up_at(failing))
        with pytest.raises(SystemExit, match="2"), report_user_errors("run.dir"):
            run(tmp_path / folder, *SHORT, *more)
        lines.append(capsys.readouterr().err.splitlines()[-1].replace(f"/{folder}/", "/"))
        assert steps(tmp_path / folder)[-1] == failing - 1
        assert not list((tmp_path / folder / "checkpoints").glob("*.part"))
    assert lines[0] == lines[1]
    assert "No space left on device" in lines[0]
    writes(lambda step, file: None)
    run(tmp_path / "later", *SHORT, BACKGROUND, "ckpt_path=auto")
    assert steps(tmp_path / "later") == [5, 6]


def test_a_failed_write_stops_the_run_at_the_next_step(run, writes, at_call, tmp_path, monkeypatch):
    done, train = [], LitMoE.training_step

    def slow_step(self, *args, **kwargs):
        done.append(None)
        time.sleep(0.2)
        return train(self, *args, **kwargs)

    monkeypatch.setattr(LitMoE, "training_step", slow_step)
    writes(fill_up_at(2))
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path / "run", *SHORT, "callbacks.checkpoint.every_n_steps=2", BACKGROUND)
    assert len(done) == 3


def test_the_end_waits_for_what_is_being_written(run, writes, tmp_path):
    writes(lambda step, file: time.sleep(1.0 if step == 2 else 0))
    steps_of_two = ["trainer.max_steps=3", "trainer.limit_val_batches=0", "callbacks.checkpoint.every_n_steps=2"]
    run(tmp_path / "run", *SHORT, *steps_of_two, BACKGROUND)
    assert steps(tmp_path / "run") == [2, 3]
    assert not any(thread.name == "checkpoint" for thread in threading.enumerate())


def test_a_signal_waits_and_saves(run, whole, writes, at_call, tmp_path):
    writes(lambda step, file: time.sleep(0.3))
    at_call("training_step", 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "run", *SHORT, BACKGROUND)
    assert stop.value.code == 128 + signal.SIGTERM
    assert steps(tmp_path / "run") == [3, 4]
    run(tmp_path / "run", *SHORT, BACKGROUND, "ckpt_path=auto")
    assert_same_end(whole, tmp_path / "run")


def test_a_crash_waits_for_what_is_being_written(run, writes, at_call, tmp_path):
    writes(lambda step, file: time.sleep(0.3))
    at_call("training_step", 4, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "run", *SHORT, BACKGROUND)
    assert steps(tmp_path / "run") == [2, 3]


def test_a_second_ctrl_c_gives_up_what_is_being_written(run, writes, at_call, tmp_path):
    begun, told = threading.Event(), threading.Event()

    def slowly(step, file):
        if step == 3:
            begun.set()
            told.wait(10)

    def twice():
        assert begun.wait(60)
        os.kill(os.getpid(), signal.SIGINT)
        told_soon = threading.Timer(0.5, told.set)
        told_soon.start()
        os.kill(os.getpid(), signal.SIGINT)

    writes(slowly)
    at_call("training_step", 4, twice)
    with pytest.raises(SystemExit):
        run(tmp_path / "run", *SHORT, BACKGROUND)
    assert files(tmp_path / "run") == ["last.ckpt", "step-000000001.ckpt", "step-000000002.ckpt"]


def test_data_workers_begun_while_a_file_is_open_do_not_touch_it(run, whole, writes, tmp_path):
    writes(lambda step, file: (file.flush(), time.sleep(0.2)))
    later = run(tmp_path / "run", *SHORT, KEEP_ALL, BACKGROUND, "data.num_workers=1")
    assert_same_end(whole, later)
    for step in range(1, 7):
        checkpoint_file.check_intact(RunDirectory(later).step(step))


def test_on_a_cpu_nothing_is_written_in_the_background_unless_asked_for(run, writes, tmp_path):
    places = []
    writes(lambda step, file: places.append(in_background()))
    run(tmp_path / "run", *SHORT, "trainer.max_steps=3")
    assert places
    assert not any(places)


def test_two_ranks_leave_the_same_files(run, on_two_ranks, tmp_path):  # noqa: F811
    folders = [tmp_path / "now", tmp_path / "later"]
    more = ["callbacks.checkpoint.every_n_steps=1", KEEP_ALL]
    for folder, way in zip(folders, ([], [BACKGROUND]), strict=True):
        assert on_two_ranks(lambda folder=folder, way=way: run(folder, *TWO_RANKS, *more, *way)) == [0, 0]
    assert files(folders[0]) == files(folders[1])
    for step in range(1, 5):
        assert_identical(load(folders[0], step), load(folders[1], step))


def test_a_copy_is_the_same_file_and_is_not_changed_by_what_follows(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    content = {"state_dict": {"whole": whole, "part": whole[1:, ::2]}, "loops": {"done": [1, 2]}, "name": "a"}
    checkpoint_file.save_checkpoint(content, tmp_path / "a.ckpt")
    copy = copy_to_host(content)
    whole.zero_()
    content["loops"]["done"].append(3)
    checkpoint_file.save_checkpoint(copy, tmp_path / "b.ckpt")
    assert (tmp_path / "a.ckpt").read_bytes() == (tmp_path / "b.ckpt").read_bytes()


@pytest.mark.parametrize("free", [0, None, 10**9], ids=["none", "unknown", "enough"])
def test_without_memory_for_a_copy_it_is_written_at_once(tmp_path, monkeypatch, caplog, free):
    caplog.set_level("INFO")
    monkeypatch.setattr(background_writer, "free_memory", lambda on_gpu: free)
    writer, places = BackgroundWriter(), []
    for name in ("a", "b"):
        path = tmp_path / name
        writer.write({"x": torch.zeros(9)}, path, then=lambda: places.append(in_background()), only_if_it_fits=True)
        writer.wait()
        assert torch.equal(checkpoint_file.load_intact(path)["x"], torch.zeros(9))
    assert places == [free == 10**9] * 2
    assert caplog.text.count("checkpoints hold up training") == (free != 10**9)


def test_an_arm_of_a_sweep_is_the_same_arm_however_its_checkpoints_are_written():
    checkpoint = {"monitor": "val/loss", "keep_last": 2}
    before, now = ({"callbacks": {"checkpoint": checkpoint | key}} for key in ({}, {"in_background": True}))
    assert identify(before) == identify(now)
    assert identify(before) != identify({"callbacks": {"checkpoint": checkpoint | {"keep_last": 3}}})
