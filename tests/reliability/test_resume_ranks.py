"""The same with two ranks, and with other numbers of data workers."""

import os
import signal
import socket

import pytest
from torch import multiprocessing

from tests.reliability.compare import assert_same_end

SHORT = [
    "trainer=ddp",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.devices=2",
    "trainer.max_steps=4",
    "trainer.accumulate_grad_batches=2",
    "trainer.val_check_interval=4",
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


@pytest.fixture
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


def terminate_rank_1() -> None:
    """Not rank 0: all must agree to stop."""
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)


def test_two_ranks_continue_exactly(run, on_two_ranks, at_call, tmp_path):
    assert on_two_ranks(lambda: run(tmp_path / "whole", *SHORT)) == [0, 0]

    def interrupted():
        at_call("training_step", 5, terminate_rank_1)
        run(tmp_path / "run", *SHORT)

    assert on_two_ranks(interrupted) == [128 + signal.SIGTERM, 0]
    assert (tmp_path / "run" / "checkpoints" / "step-000000003.ckpt").exists()
    assert on_two_ranks(lambda: run(tmp_path / "run", *SHORT, "ckpt_path=auto")) == [0, 0]
    assert_same_end(tmp_path / "whole", tmp_path / "run")
