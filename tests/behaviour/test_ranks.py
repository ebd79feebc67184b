"""Two gloo processes train as one process that accumulates: the same gradients, parameters and resumed runs."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from moe_toy.errors import UserError
from moe_toy.runs.checkpoint import Checkpoint
from moe_toy.runs.checkpoint_file import DamagedError
from moe_toy.runs.resume import starting_point
from moe_toy.runs.run_directory import RunDirectory
from moe_toy.runs.sharded_checkpoint import check_sealed, seal
from tests.paths import ROOT
from tests.small_run import EIGHT_EXPERTS, SMALL
from tests.train_run import run_training

ON_CPUS = ["trainer.accelerator=cpu", "trainer.precision=32-true"]
STRONG = "balance.coefficient=1.0"
SCHEMES = {
    "none": ["balance=none"],
    "sequence": ["balance=sequence", STRONG],
    "segment": ["balance=segment", "balance.segment_length=8", STRONG],
    "exact": ["balance=global_batch", "balance.estimate=exact", STRONG],
    "ema": ["balance=ema", STRONG],
    "loss_free": ["balance=loss_free", "balance.rate=0.05"],
    "contrast": ["balance=global_batch", "balance.estimate=exact", STRONG, "locality=contrast"],
    "residency": ["balance=global_batch", "balance.estimate=exact", STRONG, "locality=residency"],
}
FIVE_STEPS = {
    "ddp": ["balance=micro_batch", "trainer.val_check_interval=1"],
    "fsdp": [*SCHEMES["exact"], "trainer.accumulate_grad_batches=2", "trainer.val_check_interval=2"],
}
COMPILED = ("ddp", "fsdp")

LOST_CONNECTION = re.compile(r"gloo.*(connect|timed out|closed|reset)|DistNetworkError|EADDRINUSE", re.IGNORECASE)


def launch(num_ranks: int, jobs: list[tuple[Path, list[str]]], folder: Path) -> None:
    """Train in each directory, one after the other, on `num_ranks` processes that torchrun starts.

    Once more if the processes lost each other, which a busy machine may do to gloo and which says nothing of us.
    """
    (folder / "jobs.json").write_text(json.dumps([(str(run_dir), overrides) for run_dir, overrides in jobs]))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_ranks)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command += ["-m", "tests.rank", str(folder / "jobs.json")]
    for attempt in (1, 2):
        for run_dir, _ in jobs:
            shutil.rmtree(run_dir, ignore_errors=True)  # of a launch that failed, here or in another worker
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        first_error = max(done.stderr.find("Traceback"), 0)  # torchrun's own summary comes last, and is long
        error = done.stderr[first_error:][:6000]
        assert attempt == 1, error
        assert LOST_CONNECTION.search(error), error


@pytest.fixture(scope="module")
def folder(tmp_path_factory, worker_id):
    """One for all workers of pytest-xdist, so that the launch on two ranks is made once."""
    if worker_id == "master":
        return tmp_path_factory.mktemp("ranks")
    shared = tmp_path_factory.getbasetemp().parent / "ranks"
    shared.mkdir(exist_ok=True)
    return shared


@pytest.fixture(scope="module")
def common(texts, folder):
    places = [f"data.source.path={texts}", f"data.root={folder / 'cache'}"]
    rest = ["callbacks=none", "logger=none", "trainer.val_check_interval=1.0"]
    return [*SMALL, *EIGHT_EXPERTS, *places, *rest]


@pytest.fixture(scope="module")
def two_steps(common, folder):
    """Overrides for two float64 steps of 8 sequences, which save their gradients too."""

    def overrides(run_dir: Path, *more: str) -> list[str]:
        gradients = ["+callbacks.gradients._target_=tests.rank.SaveGradients", f"+callbacks.gradients.folder={run_dir}"]
        return [*common, *gradients, "trainer.precision=64-true", "trainer.max_steps=2", *more]

    return overrides


@pytest.fixture(scope="module")
def on_two_ranks(common, two_steps, folder):
    """The directory of each run on two ranks; all share one launch, since starting takes longest."""
    jobs = []
    for name, scheme in SCHEMES.items():
        split = ["trainer=ddp", "data.batch_size=2", "trainer.accumulate_grad_batches=2", "trainer.accelerator=cpu"]
        run_dir = folder / f"ranks-{name}"
        jobs.append((run_dir, [*two_steps(run_dir, *scheme, *split), "trainer.devices=2"]))
    for name, scheme in FIVE_STEPS.items():
        overrides = [*common, f"trainer={name}", *ON_CPUS, "trainer.devices=2", "trainer.max_steps=5", *scheme]
        jobs.append((folder / f"ranks-{name}", [*overrides, "callbacks.checkpoint.keep_last=9"]))
    for strategy in COMPILED:
        for name, compiled in (("plain", "false"), ("compiled", "true")):
            rest = ["trainer.precision=bf16-mixed", "model.num_layers=3", "trainer.val_check_interval=2"]
            overrides = [*common, f"trainer={strategy}", "trainer.accelerator=cpu", "trainer.devices=2", *rest]
            run_dir = folder / f"ranks-{strategy} {name}"
            jobs.append((run_dir, [*overrides, f"model.compile={compiled}", "trainer.max_steps=2"]))
            jobs.append((run_dir, [*jobs[-1][1], "trainer.max_steps=4", "ckpt_path=auto"]))
    done = folder / "launched"
    with FileLock(folder / "launch.lock"):
        if not done.exists():
            launch(2, jobs, folder)
            done.touch()
    return {run_dir.name.removeprefix("ranks-"): run_dir for run_dir, _ in jobs}


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return Checkpoint.open(run_dir).weights


def check_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], atol: float) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=atol, msg=lambda text, name=name: f"{name} {text}")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_step_has_the_same_gradients_however_it_is_split(scheme, two_steps, on_two_ranks, folder):
    ways = {"1x8": (8, 1), "4x2": (2, 4)}
    whole, split = folder / f"1x8-{scheme}", folder / f"4x2-{scheme}"
    for run_dir in (whole, split):
        batch_size, accumulated = ways[run_dir.name[:3]]
        overrides = [f"data.batch_size={batch_size}", f"trainer.accumulate_grad_batches={accumulated}"]
        run_training(run_dir, *two_steps(run_dir, *SCHEMES[scheme], *overrides))
    for other in (split, on_two_ranks[scheme]):
        for step in (0, 1):
            check_equal(*(torch.load(d / f"gradients-{step}.pt") for d in (whole, other)), atol=1e-10)
        check_equal(weights(whole), weights(other), atol=1e-10)


@pytest.mark.parametrize("strategy", FIVE_STEPS)
def test_five_steps_on_two_ranks_are_those_of_one_process_that_accumulates(strategy, common, on_two_ranks, folder):
    accumulated = {"ddp": 2, "fsdp": 4}[strategy]
    one = folder / f"one-{strategy}"
    last = [f"trainer.accumulate_grad_batches={accumulated}", "trainer.max_steps=5"]
    run_training(one, *common, *FIVE_STEPS[strategy], *last)
    check_equal(weights(one), weights(on_two_ranks[strategy]), atol=1e-5)


@pytest.mark.parametrize("strategy", COMPILED)
def test_a_compiled_run_ends_and_goes_on_with_the_weights_of_a_plain_one(strategy, on_two_ranks):
    plain, compiled = (Checkpoint.open(on_two_ranks[f"{strategy} {name}"]) for name in ("plain", "compiled"))
    assert compiled.content["global_step"] == 4
    assert plain.weights.keys() == compiled.weights.keys()
    distances = {name: (w - compiled.weights[name]).norm() / w.norm() for name, w in plain.weights.items()}
    assert 0 < max(distances.values()) < 0.02  # bf16 rounds otherwise where operations are put together


def test_a_sharded_checkpoint_goes_on_with_another_number_of_ranks(common, on_two_ranks, folder):
    middle = on_two_ranks["fsdp"] / "checkpoints" / "step-000000002.ckpt"
    assert {"__0_0.distcp", "__1_0.distcp"} < {path.name for path in middle.iterdir()}
    overrides = [*common, "trainer=fsdp", *ON_CPUS, *FIVE_STEPS["fsdp"], "trainer.max_steps=5"]
    alone = ["trainer.devices=1", "trainer.accumulate_grad_batches=4", f"ckpt_path={middle}"]
    launch(1, [(folder / "alone", [*overrides, *alone])], folder)
    check_equal(weights(folder / "alone"), weights(on_two_ranks["fsdp"]), atol=1e-5)


@pytest.fixture
def sharded(on_two_ranks, tmp_path):
    """A copy to damage."""
    return shutil.copytree(on_two_ranks["fsdp"] / "checkpoints" / "step-000000002.ckpt", tmp_path / "a.ckpt")


def test_a_sharded_checkpoint_is_sealed_as_a_shell_can_check(sharded):
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=sharded, check=True)


@pytest.mark.parametrize("name", ["__1_0.distcp", ".metadata", "meta.pt", "SHA256SUMS"])
def test_damage_to_any_part_of_a_sharded_checkpoint_is_noticed(sharded, name):
    check_sealed(sharded)
    damaged = bytearray((sharded / name).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (sharded / name).write_bytes(damaged)
    with pytest.raises(DamagedError, match=r"is not what was written"):
        check_sealed(sharded)
    with pytest.raises(UserError, match="is damaged"):
        starting_point(str(sharded), RunDirectory(sharded.parent))
    (sharded / name).unlink()
    with pytest.raises(DamagedError):
        check_sealed(sharded)


def test_reading_a_sharded_checkpoint_executes_nothing(sharded):
    (sharded / ".metadata").write_bytes(pickle.dumps(Touch(sharded / "touched")))
    seal(sharded)
    with pytest.raises(UserError, match=r"\.metadata names posix\.mkdir, which is no part of a checkpoint"):
        _ = Checkpoint.open(sharded).weights
    assert not (sharded / "touched").exists()


def test_a_missing_shard_is_told_even_if_it_was_sealed_so(sharded):
    (sharded / "__1_0.distcp").unlink()
    seal(sharded)
    with pytest.raises(UserError, match="its shards do not fit together"):
        _ = Checkpoint.open(sharded).weights


class Touch:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_sharded_checkpoint_cannot_declare_more_than_it_holds(sharded):
    with (sharded / ".metadata").open("rb") as file:
        metadata = pickle.load(file)
    entry = next(entry for entry in metadata.state_dict_metadata.values() if hasattr(entry, "size"))
    entry.size = torch.Size([10**10])
    (sharded / ".metadata").write_bytes(pickle.dumps(metadata))
    seal(sharded)
    with pytest.raises(UserError, match="it declares more data than it holds"):
        _ = Checkpoint.open(sharded).weights


def test_a_sharded_checkpoint_needs_a_sharded_strategy(common, on_two_ranks, folder):
    sharded = on_two_ranks["fsdp"] / "checkpoints" / "last.ckpt"
    with pytest.raises(ValueError, match=r"is a folder of shards, which trainer\.strategy=auto cannot continue"):
        run_training(folder / "refused", *common, *SCHEMES["exact"], f"ckpt_path={sharded}")
