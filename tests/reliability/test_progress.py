"""Progress is counted in steps, sequences and tokens: a run goes on the same with batches of another size."""

import shutil

import pandas as pd
import pytest
import torch

from moe_toy.errors import UserError

EVEN = "balance=sequence"  # unlike micro_batch, the same however a step is split
SIX = ["trainer.max_steps=6", "callbacks=none", "trainer.val_check_interval=3", "data.batch_size=8"]
KEEP = "callbacks.checkpoint.keep_last=9"
HALVES = ["data.batch_size=4", "global_batch_size=8"]
SPEED = "+callbacks.throughput={_target_:moe_toy.callbacks.throughput.ThroughputCallback,window:20}"


def last(run_dir) -> dict:
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)


def difference(one, other) -> float:
    weights = [last(run_dir)["state_dict"] for run_dir in (one, other)]
    return max((weights[0][name] - weights[1][name]).abs().max().item() for name in weights[0])


def continued(run, whole, *overrides: str):
    """In a directory of its own, from the third step of `whole`."""
    start = whole / "checkpoints" / "step-000000003.ckpt"
    return run(whole.with_name("rest"), *overrides, f"ckpt_path={start}")


@pytest.mark.parametrize("balance", ["global_batch", "loss_free", "ema"])
def test_a_run_goes_on_with_its_steps_split_in_two(run, tmp_path, balance):
    options = [*SIX, f"balance={balance}", *(["balance.estimate=exact"] if balance == "global_batch" else [])]
    whole = run(tmp_path / "whole", *options, KEEP)
    rest = continued(run, whole, *options, *HALVES)
    assert last(rest)["DomainDataModule"]["num_samples"] == last(whole)["DomainDataModule"]["num_samples"] == 48
    assert last(rest)["global_step"] == 6
    assert difference(whole, rest) < 1e-5
    curves = pd.read_csv(rest / "metrics.csv")
    assert curves.dropna(subset="val/loss").step.tolist() == [6]  # the interval is one of steps
    exact = curves.get("train/balance_estimate_error/exact", pd.Series(0.0)).dropna()
    assert (exact == 0).all()


def test_steps_split_in_four_go_on_undivided(run, tmp_path):
    whole = run(tmp_path / "whole", *SIX, EVEN, "data.batch_size=2", "global_batch_size=8", KEEP)
    assert difference(whole, continued(run, whole, *SIX, EVEN)) < 1e-5


def test_tokens_are_counted_on_with_steps_of_half_the_size(run, tmp_path):
    part = run(tmp_path / "part", "callbacks=none", SPEED, "trainer.max_steps=3", "data.batch_size=4")
    run(part, "callbacks=none", SPEED, "trainer.max_steps=5", "data.batch_size=2", "ckpt_path=auto")
    assert pd.read_csv(part / "metrics.csv")["train/tokens"].dropna().tolist() == [128, 256, 384, 448, 512]


def test_epochs_go_on_with_steps_of_the_same_size_only(run, tmp_path):
    epochs = ["trainer.max_steps=-1", "trainer.max_epochs=2", "callbacks=none", EVEN]
    one = [*epochs, "data.batch_size=4", "trainer.limit_train_batches=3"]
    whole = run(tmp_path / "whole", *one, KEEP)
    with pytest.raises(UserError, match=r"its steps were of 4 sequences, these are of 2, .* global_batch_size=4"):
        continued(run, whole, *one, "data.batch_size=2")
    shutil.rmtree(tmp_path / "rest")
    two = [*epochs, "data.batch_size=2", "global_batch_size=4", "trainer.limit_train_batches=6"]
    rest = continued(run, whole, *two)
    assert last(rest)["global_step"] == last(whole)["global_step"] == 6
    assert difference(whole, rest) < 1e-5


def test_every_step_has_as_many_sequences(run, tmp_path):
    uneven = ["trainer.accumulate_grad_batches=2", "trainer.limit_train_batches=3", "callbacks=none"]
    with pytest.raises(UserError, match=r"trainer.limit_train_batches=3 ends within a step of 2 micro-batches"):
        run(tmp_path / "uneven", *uneven, "balance=global_batch", "balance.estimate=exact", "trainer.max_steps=4")
