"""The same with two ranks, whichever is told to stop."""

import os
import signal
import socket

import pytest
from torch import multiprocessing

from moe_toy.runs.run_directory import RunDirectory
from tests.reliability.compare import assert_same_end
from tests.reliability.test_progress import difference, last

SHORT = [
    "trainer=ddp",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.devices=2",
    "trainer.max_steps=4",
    "trainer.accumulate_grad_batches=2",
    "trainer.val_check_interval=2",
    "data.validation_batch_size=1",
    "balance=global_batch",
    "callbacks=none",
    "+callbacks.saturation={_target_:moe_toy.callbacks.saturation.SaturationCallback,probe_batches:2,per_layer:false}",
]


def on_rank(rank, port, job):
    """As torchrun would start it."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "GROUP_RANK": "0"}
    os.environ |= {"LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["TORCHELASTIC_RUN_ID"] = "test"
    from lightning.pytorch.utilities import rank_zero_only

    rank_zero_only.rank = rank
    job()


@pytest.fixture(scope="module")
def on_two_ranks():
    """Run `job` on two ranks; returns their exit codes."""

    def start(job) -> list[int]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context = multiprocessing.get_context("fork")
        ranks = [context.Process(target=on_rank, args=(rank, port, job)) for rank in range(2)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(60)
        return [rank.exitcode for rank in ranks]

    return start


@pytest.fixture(scope="module")
def whole(run, on_two_ranks, tmp_path_factory):
    """The uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert on_two_ranks(lambda: run(folder, *SHORT)) == [0, 0]
    return folder


# 4 steps of 2 micro-batches; 2 validation batches before the first step and after steps 2 and 4.
@pytest.mark.parametrize(
    "case",
    [
        pytest.param((1, "training_step", 5, 3), id="rank 1 in a step"),
        pytest.param((0, "training_step", 6, 3), id="rank 0 in a step"),
        pytest.param((1, "validation_step", 3, 2), id="rank 1 in a validation"),
        pytest.param((0, "validation_step", 5, 4), id="rank 0 in the last validation"),
    ],
)
def test_two_ranks_continue_exactly(run, whole, on_two_ranks, at_call, case):
    rank, hook, call, saved_step = case
    run_dir = whole.with_name(f"{hook} {rank}")

    def terminate() -> None:
        """One rank alone: all must agree to stop."""
        if os.environ["RANK"] == str(rank):
            os.kill(os.getpid(), signal.SIGTERM)

    def interrupted():
        at_call(hook, call, terminate)
        run(run_dir, *SHORT)

    assert on_two_ranks(interrupted) == [128 + signal.SIGTERM, 0]
    assert RunDirectory(run_dir).step(saved_step).exists()
    assert on_two_ranks(lambda: run(run_dir, *SHORT, "ckpt_path=auto")) == [0, 0]
    assert_same_end(whole, run_dir)


ALONE = ["trainer.devices=1", "trainer.accumulate_grad_batches=1", "global_batch_size=16", "balance.estimate=exact"]


@pytest.mark.parametrize("first", [1, 2])
def test_a_run_goes_on_with_another_number_of_ranks(run, on_two_ranks, tmp_path, first):
    """Four steps of 16 sequences, two of them on one rank and two on two."""
    ways = {1: [*ALONE, "trainer.strategy=auto"], 2: [*ALONE, "trainer.devices=2"]}

    def train_on(ranks: int, folder, *more: str) -> None:
        job = lambda: run(folder, *SHORT, *ways[ranks], *more)  # noqa: E731
        assert on_two_ranks(job) == [0, 0] if ranks == 2 else job()

    train_on(first, tmp_path / "whole")
    start = RunDirectory(tmp_path / "whole").step(2)
    train_on(3 - first, tmp_path / "rest", f"ckpt_path={start}")
    assert last(tmp_path / "rest")["DomainDataModule"]["num_samples"] == 64
    assert difference(tmp_path / "whole", tmp_path / "rest") < 1e-5
