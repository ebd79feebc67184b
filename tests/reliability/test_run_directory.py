"""What can go wrong with a run directory is one clear line, and what is there stays as it is."""

import errno
import io
import logging.config
import os
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

import evaluate
import train
from moe_toy.checks.mistakes import report_user_errors
from moe_toy.errors import UserError
from moe_toy.runs import checkpoint_file
from moe_toy.runs.checkpoint_file import load_intact, save_checkpoint
from moe_toy.runs.resume import lock_run_directory
from moe_toy.training.lit_moe import LitMoE
from moe_toy.training.session import record_tokenizer
from tests.paths import ROOT
from tests.small_run import EIGHT_EXPERTS, SMALL

TWO_STEPS = ["trainer.max_steps=2", "trainer.val_check_interval=1", "callbacks=none"]


@pytest.fixture(scope="module")
def finished(run, tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs") / "finished", *TWO_STEPS)


def test_a_second_process_is_refused_while_the_first_lives_and_not_after_it_was_killed(tmp_path):
    reader, writer = os.pipe()
    if (process := os.fork()) == 0:
        with lock_run_directory(tmp_path):
            os.write(writer, b"locked")
            signal.pause()
    os.read(reader, 6)
    with pytest.raises(UserError, match="another process is training in"), lock_run_directory(tmp_path):
        pass
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    with lock_run_directory(tmp_path):
        pass


def test_a_new_run_is_refused_where_another_was(run, finished):
    before = (finished / "metrics.csv").read_bytes()
    with pytest.raises(UserError, match=r"holds a run already; continue it with ckpt_path=auto"):
        run(finished, *TWO_STEPS)
    assert (finished / "metrics.csv").read_bytes() == before


def test_a_run_is_not_replaced_by_one_that_continues_another(run, finished, tmp_path):
    other = run(tmp_path / "other", *TWO_STEPS)
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"holds a run already"):
        run(finished, *TWO_STEPS, f"ckpt_path={other / 'checkpoints' / 'last.ckpt'}")
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def let_no_later_step_be_better(run_dir, than: int):
    content = load_intact(run_dir / "checkpoints" / "last.ckpt")
    (name,) = (name for name in content["callbacks"] if "CheckpointCallback" in name)
    content["callbacks"][name]["best"] = (0.0, than)
    save_checkpoint(content, run_dir / "checkpoints" / "step-000000002.ckpt")


def test_a_run_directory_that_was_moved_keeps_its_best(run, finished, tmp_path):
    moved = shutil.copytree(finished, tmp_path / "moved")
    let_no_later_step_be_better(moved, than=1)
    best = (moved / "checkpoints" / "best.ckpt").read_bytes()
    run(moved, *TWO_STEPS, "trainer.max_steps=3", "ckpt_path=auto")
    assert (moved / "checkpoints" / "best.ckpt").read_bytes() == best


def test_checkpoints_that_were_moved_away_and_linked_still_belong_to_the_run(run, finished, tmp_path):
    linked = shutil.copytree(finished, tmp_path / "linked")
    elsewhere = (linked / "checkpoints").rename(tmp_path / "elsewhere")
    (linked / "checkpoints").symlink_to(elsewhere)
    run(linked, *TWO_STEPS, "trainer.max_steps=3", "ckpt_path=auto")
    assert sorted(pd.read_csv(linked / "metrics.csv")["train/loss"].dropna().index) == [1, 3, 5]
    run(linked, *TWO_STEPS, "trainer.max_steps=3", f"ckpt_path={linked}/checkpoints/last.ckpt")


def test_a_time_without_loggers_does_not_lose_the_rows_before(run, finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    run(copy, *TWO_STEPS, "trainer.max_steps=3", "ckpt_path=auto", "logger=none")
    run(copy, *TWO_STEPS, "trainer.max_steps=4", "ckpt_path=auto")
    assert pd.read_csv(copy / "metrics.csv")["train/loss"].dropna().size == 3


def test_rows_are_kept_whatever_their_logger_is_called(run, tmp_path):
    mine = "+logger.mine={_target_:moe_toy.runs.metrics_file.MetricsFile,save_dir:${run_dir}}"
    for steps in (1, 2):
        run(tmp_path / "run", *TWO_STEPS, "logger=none", mine, f"trainer.max_steps={steps}", "ckpt_path=auto")
    assert pd.read_csv(tmp_path / "run" / "metrics.csv")["train/loss"].count() == 2


def test_a_score_that_is_not_a_number_is_not_the_best(run, tmp_path, monkeypatch):
    log, seen = LitMoE.log, []

    def first_is_nan(self, name, value, *args, **kwargs):
        if name == "val/loss":
            seen.append(value)
            value = float("nan") if len(seen) == 2 else value
        log(self, name, value, *args, **kwargs)

    monkeypatch.setattr(LitMoE, "log", first_is_nan)
    run(tmp_path / "run", *TWO_STEPS)
    assert load_intact(tmp_path / "run" / "checkpoints" / "best.ckpt")["global_step"] == 2


def test_a_score_that_is_not_logged_is_told_of_once(run, tmp_path, caplog):
    run(tmp_path / "run", *TWO_STEPS, "callbacks.checkpoint.monitor=val/los")
    said = "callbacks.checkpoint.monitor=val/los is not logged, so there is no best.ckpt; did you mean val/loss?"
    assert caplog.text.count(said) == 1


def test_a_crash_before_the_best_is_named_does_not_forget_it(run, finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    let_no_later_step_be_better(copy, than=2)
    (copy / "checkpoints" / "best.ckpt").unlink()
    run(copy, *TWO_STEPS, "trainer.max_steps=3", "ckpt_path=auto")
    assert load_intact(copy / "checkpoints" / "best.ckpt")["global_step"] == 2


def test_only_its_own_checkpoints_are_rotated_and_remains_swept_up(run, finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    checkpoints = copy / "checkpoints"
    shutil.copy(checkpoints / "step-000000001.ckpt", checkpoints / "step-000000001-keep.ckpt")
    (checkpoints / "step-000000001.ckpt.part").write_text("half")
    (checkpoints / "step-000000009.ckpt").symlink_to("nowhere")
    run(copy, *TWO_STEPS, "trainer.max_steps=4", "ckpt_path=auto")
    names = ["best.ckpt", "last.ckpt", "step-000000001-keep.ckpt", "step-000000003.ckpt", "step-000000004.ckpt"]
    assert sorted(path.name for path in checkpoints.iterdir()) == names


@pytest.mark.parametrize("continues", ["ckpt_path=auto", "init_from=checkpoints/last.ckpt"])
def test_another_tokenizer_than_that_of_the_weights_is_refused(run, finished, tmp_path, continues):
    copy = shutil.copytree(finished, tmp_path / "copy")
    tokenizer = copy / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    run_dir = copy if continues == "ckpt_path=auto" else tmp_path / "new"
    override = continues.replace("=checkpoints", f"={copy}/checkpoints")
    with pytest.raises(UserError, match=f"trained with another one; pass data.tokenizer={tokenizer}"):
        run(run_dir, *TWO_STEPS, "trainer.max_steps=3", override)
    run(run_dir, *TWO_STEPS, "trainer.max_steps=3", override, f"data.tokenizer={tokenizer}")
    assert (run_dir / "tokenizer.json").read_text().endswith(" ")


def test_other_samples_than_would_have_followed_are_told_of(run, finished, tmp_path, caplog):
    copy = shutil.copytree(finished, tmp_path / "copy")
    run(copy, *TWO_STEPS, "trainer.max_steps=3", "ckpt_path=auto")
    assert "other samples follow" not in caplog.text
    run(copy, *TWO_STEPS, "trainer.max_steps=4", "ckpt_path=auto", "data.seed=7")
    assert "other samples follow" in caplog.text
    content = load_intact(copy / "checkpoints" / "last.ckpt")
    del content["DomainDataModule"]["order"]  # as in checkpoints of before
    save_checkpoint(content, copy / "checkpoints" / "step-000000004.ckpt")
    run(copy, *TWO_STEPS, "trainer.max_steps=5", "ckpt_path=auto")


def test_other_text_of_the_same_length_is_told_of_too(run, finished, texts, tmp_path, caplog):
    """The same documents in another order: as many sequences in each domain, but not those."""
    copy, other = shutil.copytree(finished, tmp_path / "copy"), shutil.copytree(texts, tmp_path / "texts")
    for file in other.iterdir():
        file.write_text("".join(reversed(file.read_text().splitlines(keepends=True))))
    tokenizer = f"data.tokenizer={copy / 'tokenizer.json'}"
    run(copy, *TWO_STEPS, "trainer.max_steps=3", "ckpt_path=auto", tokenizer)
    assert "other samples follow" not in caplog.text
    run(copy, *TWO_STEPS, "trainer.max_steps=4", "ckpt_path=auto", tokenizer, f"data.source.path={other}")
    assert "other samples follow" in caplog.text


def test_a_disk_that_fills_up_leaves_whole_what_it_was_to_replace(finished, tmp_path, monkeypatch):
    copy = shutil.copytree(finished, tmp_path / "copy")
    before = (copy / "tokenizer.json").read_bytes()

    def half(path, content):
        with path.open("wb") as file:
            file.write(content[:9])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(type(copy), "write_bytes", half)
    with pytest.raises(OSError, match=r"copy/tokenizer\.json\.part"):
        record_tokenizer(finished / "tokenizer.json", copy)
    assert (copy / "tokenizer.json").read_bytes() == before
    assert not (copy / "tokenizer.json.part").exists()


@pytest.mark.parametrize(("missing", "kept"), [(9, 4), (10_000, 0)], ids=["end of the last row", "everything"])
def test_rows_that_were_lost_are_told_of(run, tmp_path, caplog, missing, kept):
    copy = run(tmp_path / "run", *TWO_STEPS)
    file = copy / "metrics.csv"
    file.write_text(file.read_text()[:-missing])
    run(copy, *TWO_STEPS, "trainer.max_steps=3", "ckpt_path=auto")
    assert f"has only {kept} of 5 rows; the others are lost" in caplog.text
    assert len(pd.read_csv(file)) == kept + 2


def test_a_file_of_rows_that_was_deleted_is_told_of(run, finished, tmp_path, caplog):
    copy = shutil.copytree(finished, tmp_path / "copy")
    (copy / "metrics.csv").unlink()
    run(copy, *TWO_STEPS, "trainer.max_steps=3", "ckpt_path=auto")
    assert "has only 0 of 5 rows; the others are lost" in caplog.text


@pytest.mark.parametrize("content", [b"\xff\xfe", b"1,2\n3,4\n"], ids=["not text", "no header"])
def test_rows_that_cannot_be_read_are_refused(run, finished, tmp_path, content):
    copy = shutil.copytree(finished, tmp_path / "copy")
    (copy / "metrics.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"metrics.csv is not what the run wrote .*; restore it, or remove it"):
        run(copy, *TWO_STEPS, "trainer.max_steps=3", "ckpt_path=auto")
    assert (copy / "metrics.csv").read_bytes() == content


def test_another_optimiser_than_that_of_the_checkpoint_is_refused(run, finished):
    with pytest.raises(UserError, match=r"optimizer.lr=0.001 differs from 0.002, with which .* goes on; .*init_from="):
        run(finished, *TWO_STEPS, "optimizer.lr=1e-3", "ckpt_path=auto")


OTHER = {"moe.top_k": (2, 4), "moe.router": ("topk_then_softmax", "sigmoid"), "model.rope_base": (10000.0, 500.0)}
"""Settings that weights do not show: as the finished run has them, and others."""


@pytest.mark.parametrize("key", OTHER)
def test_another_model_than_that_of_the_checkpoint_is_refused_also_where_its_weights_fit(run, finished, key):
    was, now = OTHER[key]
    with pytest.raises(UserError, match=rf"{key}={now} differs from {was}, with which .* goes on; .*init_from="):
        run(finished, *TWO_STEPS, f"{key}={now}", "ckpt_path=auto")


def test_another_loss_than_before_is_told_of(run, finished, tmp_path, caplog):
    copy = shutil.copytree(finished, tmp_path / "copy")
    run(copy, *TWO_STEPS, "ckpt_path=auto")
    assert "from here on" not in caplog.text
    run(copy, *TWO_STEPS, "ckpt_path=auto", "balance.coefficient=0.1", "moe.z_loss_coefficient=0.0")
    assert "balance.coefficient was 0.01, and is 0.1 from here on" in caplog.text
    assert "moe.z_loss_coefficient was 0.001, and is 0.0 from here on" in caplog.text


def test_what_weights_are_started_with_otherwise_is_told(run, tmp_path, caplog):
    biased = run(tmp_path / "biased", *TWO_STEPS, "trainer.max_steps=1", "balance=loss_free")
    others = [f"{key}={now}" for key, (_, now) in OTHER.items()]
    run(tmp_path / "new", *TWO_STEPS, "trainer.max_steps=1", f"init_from={biased}", *others)
    for key, (was, now) in OTHER.items():
        assert f"init_from: {key} was {was}, and is {now} now" in caplog.text
    assert "init_from: choices had the bias of balance=loss_free, and have none now" in caplog.text


def test_a_finished_run_can_be_continued_for_longer(run, finished, tmp_path):
    longer = run(shutil.copytree(finished, tmp_path / "longer"), *TWO_STEPS, "trainer.max_steps=4", "ckpt_path=auto")
    rates = pd.read_csv(longer / "metrics.csv")["train/lr"].dropna()
    assert len(rates) == 4
    assert rates.iloc[2] > rates.iloc[3]


def test_continuing_a_finished_run_changes_nothing(run, finished):
    before = {path: path.read_bytes() for path in finished.rglob("*.ckpt")}
    rows = pd.read_csv(finished / "metrics.csv")
    run(finished, *TWO_STEPS, "ckpt_path=auto")
    assert {path: path.read_bytes() for path in finished.rglob("*.ckpt")} == before
    pd.testing.assert_frame_equal(pd.read_csv(finished / "metrics.csv"), rows)


def test_a_full_disk_stops_the_run_and_keeps_what_was_saved(run, tmp_path, monkeypatch):
    write, calls = checkpoint_file._save, []

    def full_at_the_second(content, file):
        calls.append(None)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.file.name)
        write(content, file)

    monkeypatch.setattr(checkpoint_file, "_save", full_at_the_second)
    with pytest.raises(OSError, match="No space left on device"):
        run(tmp_path / "run", *TWO_STEPS)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("step*")] == ["step-000000001.ckpt"]
    run(tmp_path / "run", *TWO_STEPS, "ckpt_path=auto")
    assert (tmp_path / "run" / "checkpoints" / "step-000000002.ckpt").exists()


OUTPUT = {"train": train.OUTPUT, "evaluate": evaluate.OUTPUT}


@pytest.mark.parametrize(
    ("command", "remedy"), [("train", "another hydra.run.dir; "), ("evaluate", "another out_dir; ")]
)
@pytest.mark.parametrize(
    "code",
    [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG, errno.EISDIR, errno.ELOOP],
    ids=errno.errorcode.get,
)
def test_what_cannot_be_written_is_told_in_one_line(capsys, code, command, remedy):
    def main():
        raise OSError(code, os.strerror(code), "outputs/run/metrics.csv")

    with pytest.raises(SystemExit, match="2"), report_user_errors(OUTPUT[command]):
        main()
    line = capsys.readouterr().err
    assert remedy in line
    assert line.startswith(f"error: cannot write outputs/run/metrics.csv ({os.strerror(code)}); ")
    assert line.count("\n") == 1


def test_a_log_file_that_cannot_be_opened_is_told_in_one_line(capsys, tmp_path):
    handlers = {"file": {"class": "logging.FileHandler", "filename": str(tmp_path)}}
    with pytest.raises(SystemExit, match="2"), report_user_errors(OUTPUT["train"]):
        logging.config.dictConfig({"version": 1, "handlers": handlers})
    assert capsys.readouterr().err.startswith(f"error: cannot write {tmp_path} (Is a directory); ")


class OnFullDisk(io.StringIO):
    def write(self, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_log_that_cannot_be_written_is_passed_over(capsys):
    with report_user_errors(OUTPUT["train"]):
        logging.StreamHandler(OnFullDisk()).handle(logging.makeLogRecord({"msg": "finished step 1"}))
    assert capsys.readouterr().err == ""


def test_a_file_in_place_of_the_run_directory_is_told_in_one_line(texts, cache, tmp_path):
    (tmp_path / "run").write_text("mine")
    places = [f"data.source.path={texts}", f"data.root={cache}", f"hydra.run.dir={tmp_path / 'run'}"]
    command = [sys.executable, ROOT / "train.py", *SMALL, *EIGHT_EXPERTS, *places]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: cannot write {tmp_path / 'run'} (File exists); ")
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "run").read_text() == "mine"


def test_wandb_goes_on_under_the_same_id(run, tmp_path):
    steps = ["logger=wandb", "callbacks=none", "trainer.val_check_interval=1"]
    run(tmp_path / "run", *steps, "trainer.max_steps=1")
    time.sleep(1)  # W&B names folders by the second
    run(tmp_path / "run", *steps, "trainer.max_steps=2", "ckpt_path=auto")
    ids = [path.name.rpartition("-")[2] for path in (tmp_path / "run" / "wandb").glob("offline-run-*")]
    assert len(ids) == 2
    assert len(set(ids)) == 1


def test_a_run_continued_elsewhere_leaves_the_first_as_it_was(run, finished, tmp_path):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    start = f"ckpt_path={finished}/checkpoints/step-000000001.ckpt"
    run(tmp_path / "elsewhere", *TWO_STEPS, start)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before
    steps = pd.read_csv(tmp_path / "elsewhere" / "metrics.csv").dropna(subset="val/loss").step
    assert steps.tolist() == [2]
    assert (tmp_path / "elsewhere" / "checkpoints" / "best.ckpt").exists()
