"""Whole runs of `train.py` on small text: what they leave behind, and that resuming changes nothing."""

import json
import subprocess
import sys
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from moe_toy.data.tokenizer import Tokenizer
from moe_toy.errors import UserError
from tests.behaviour.test_experiments import PAPER
from tests.small_run import EIGHT_EXPERTS, SMALL
from tests.train_run import run_training


@pytest.fixture
def run(texts, tmp_path):
    """`run("name", "trainer.max_steps=3")`: train in a directory of that name, and return it."""

    def train_in(name: str, *overrides: str, moe: list[str] = EIGHT_EXPERTS, **how: bool):
        places = [f"data.source.path={texts}", f"data.root={tmp_path / 'cache'}"]
        return run_training(tmp_path / name, *SMALL, *places, *moe, *overrides, **how)

    return train_in


def weights(run_dir) -> dict[str, torch.Tensor]:
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_a_run_lowers_the_loss_and_leaves_its_curves_config_and_checkpoints(run):
    run_dir = run("whole", "trainer.max_steps=30", "logger=csv", curves=True)
    metrics = pd.read_csv(run_dir / "metrics.csv")
    losses = metrics["val/loss"].dropna()
    assert losses.iloc[-1] < losses.iloc[0] - 1
    validated = metrics.dropna(subset="val/loss").step.tolist()
    assert validated == [0, *range(3, 31, 3)]  # the untrained model, then ten times
    srp = "consistency/srp@16"
    assert {srp, f"{srp}/layer_01", f"{srp}/domain/fruit", "specialization/experts_of/fruit"} <= {*metrics.columns}
    assert "epoch" not in metrics
    assert "consistency/srp@4/layer_01" not in metrics.columns
    assert metrics["router/saturation"].notna().sum() == len(validated) - 1
    assert metrics.dropna(subset="val/loss").iloc[-1].filter(like="cache/sch@16").between(0, 1).all()
    assert len([name for name in metrics if not name.startswith("train/")]) <= 150
    assert set(pd.read_csv(run_dir / "strongest_tokens.csv").expert) <= set(range(8))
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert config["model"]["vocab_size"] == 300  # interpolations are resolved
    assert (run_dir / "curves.png").stat().st_size > 10_000
    checkpoints = sorted(path.name for path in (run_dir / "checkpoints").iterdir())
    assert checkpoints == ["best.ckpt", "last.ckpt", "step-000000027.ckpt", "step-000000030.ckpt"]
    assert Tokenizer.load(run_dir / "tokenizer.json").vocab_size == 300


@pytest.mark.parametrize(
    "balance",
    [
        ["balance=micro_batch"],
        ["balance=global_batch", "balance.estimate=exact"],
        ["balance=ema"],
        ["balance=loss_free"],
        ["locality=residency"],
    ],
    ids=lambda overrides: overrides[-1],
)
def test_resuming_in_the_middle_gives_the_weights_of_the_uninterrupted_run(run, balance):
    common = ["trainer.max_steps=6", "logger=csv", "callbacks=none", "trainer.accumulate_grad_batches=2", *balance]
    whole = run("whole", *common, "callbacks.checkpoint.keep_last=9", "trainer.val_check_interval=4")
    rest = run("rest", *common, f"ckpt_path={whole}/checkpoints/step-000000004.ckpt")
    resumed = pd.read_csv(rest / "metrics.csv").dropna(subset="train/loss")
    assert resumed.step.min() >= 4
    for name, expected in weights(whole).items():
        torch.testing.assert_close(weights(rest)[name], expected, rtol=0, atol=0)


def test_a_new_run_starts_from_the_weights_of_another(run):
    first = run("first", "trainer.max_steps=2", "logger=csv")
    path = f"{first}/checkpoints/last.ckpt"
    second = run("second", "trainer.max_steps=1", "logger=csv", "balance=loss_free", f"init_from={path}")
    trained = pd.read_csv(first / "metrics.csv")["val/loss"].dropna().iloc[-1]
    assert pd.read_csv(second / "metrics.csv")["val/loss"].dropna().iloc[0] == trained
    with pytest.raises(UserError, match="init_from and ckpt_path contradict each other"):
        run("third", f"init_from={path}", f"ckpt_path={path}")
    with pytest.raises(UserError, match=r"init_from: .* does not fit this model"):
        run("fourth", "moe.num_experts=4", f"init_from={path}")


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_lower_precision_trains_with_clipping(run, precision):
    run_dir = run(precision, "trainer.max_steps=2", f"trainer.precision={precision}", "logger=csv", "callbacks=none")
    metrics = pd.read_csv(run_dir / "metrics.csv")
    assert metrics["train/loss"].notna().any()
    assert metrics["train/lr"].dropna().tolist() == pytest.approx([2e-3 / 3, 4e-3 / 3], rel=1e-6)


def test_the_optimizer_in_the_backward_pass_trains_and_resumes(run):
    common = ["optimizer=adafactor_in_backward", "trainer.gradient_clip_val=null", "logger=csv", "callbacks=none"]
    keep = "callbacks.checkpoint.keep_last=9"
    whole = run("whole", *common, keep, "trainer.max_steps=4", "trainer.val_check_interval=2")
    losses = pd.read_csv(whole / "metrics.csv")["val/loss"].dropna()
    assert losses.iloc[-1] < losses.iloc[0]
    rest = run("rest", *common, "trainer.max_steps=4", f"ckpt_path={whole}/checkpoints/step-000000002.ckpt")
    for name, expected in weights(whole).items():
        torch.testing.assert_close(weights(rest)[name], expected, rtol=0, atol=0)


def shown_by_wandb(run_dir) -> dict[str, Any]:
    """State, summary and config of an offline run, as W&B's own terminal viewer reads them from its file."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(run_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_wandb_runs_offline_with_curves_and_pictures(run):
    run_dir = run("offline", "trainer.max_steps=2", "trainer.val_check_interval=2", "logger=wandb")
    (offline,) = (run_dir / "wandb").glob("offline-run-*")
    assert list(offline.glob("*.wandb"))
    media = offline / "files" / "media"
    assert list((media / "images" / "specialization" / "experts_by_domain").glob("layers_00-01_*.png"))
    assert list((media / "table" / "specialization").glob("strongest_tokens_*.table.json"))
    shown = shown_by_wandb(offline)
    metrics = pd.read_csv(run_dir / "metrics.csv")
    last = metrics.dropna(subset="val/loss").iloc[-1]
    summary = shown["summary"]
    for key in ("consistency/srp@16/domain/fruit", "load/effective_experts/layer_01", "specialization/domain"):
        assert summary[key] == pytest.approx(last[key])
    assert summary["val/loss"]["min"] == pytest.approx(metrics["val/loss"].min())
    assert summary["val/bits_per_byte"]["last"] == pytest.approx(last["val/bits_per_byte"])
    assert (summary["trainer/global_step"], summary["train/tokens"]) == (2, 2 * 4 * 32)
    assert summary["total_parameters"] > summary["active_parameters"] > 0 < summary["flops_per_token"]
    assert "epoch" not in summary
    assert shown["config"]["moe"]["top_k"] == 2
    assert (run_dir / "metrics.csv").exists()


def test_tensorboard_gets_the_same(run):
    run_dir = run("board", "trainer.max_steps=1", "logger=tensorboard")
    assert list((run_dir / "tensorboard").rglob("events.out.tfevents.*"))


def test_no_logger_still_leaves_a_checkpoint(run):
    run_dir = run("silent", "trainer.max_steps=1", "logger=none")
    assert (run_dir / "checkpoints" / "last.ckpt").exists()
    assert not (run_dir / "metrics.csv").exists()


@pytest.mark.parametrize("switch", ["callbacks.checkpoint=null", "+trainer.enable_checkpointing=false"])
def test_no_checkpoint_is_left_where_they_are_switched_off(run, switch):
    run_dir = run("light", "trainer.max_steps=1", "logger=csv", "callbacks=none", switch)
    assert not (run_dir / "checkpoints").exists()


def test_the_last_step_is_validated_when_it_is_off_the_beat(run):
    run_dir = run("odd", "trainer.max_steps=5", "trainer.val_check_interval=2", "logger=csv")
    assert pd.read_csv(run_dir / "metrics.csv").dropna(subset="val/loss").step.tolist() == [0, 2, 4, 5]


@pytest.mark.parametrize(
    ("beat", "validated"), [("val_check_interval=2", [0, 2, 5, 8, 9]), ("check_val_every_n_epoch=2", [0, 4, 5, 6, 9])]
)
def test_the_end_of_the_last_epoch_is_validated_when_it_is_off_the_beat(run, beat, validated):
    epochs = ["trainer.max_steps=-1", "trainer.max_epochs=3", "trainer.limit_train_batches=3"]
    last = "+callbacks.last_validation={_target_:moe_toy.training.last_validation.LastValidationCallback}"
    run_dir = run("odd", *epochs, f"trainer.{beat}", "logger=csv", "callbacks=none", last)
    assert pd.read_csv(run_dir / "metrics.csv").dropna(subset="val/loss").step.tolist() == validated


def test_a_run_that_epochs_end_before_max_steps_ends_at_the_lowest_rate(run):
    epochs = ["trainer.max_steps=600", "trainer.max_epochs=2", "trainer.limit_train_batches=3"]
    run_dir = run("epochs", *epochs, "trainer.limit_val_batches=0", "logger=csv", "callbacks=none")
    rates = pd.read_csv(run_dir / "metrics.csv")["train/lr"]
    assert len(rates) == 6
    assert rates.iloc[-1] < rates.max() / 2


def test_an_interval_that_an_epoch_of_the_text_never_reaches_is_refused(run):
    epoch = ["trainer.max_steps=-1", "trainer.max_epochs=1", "trainer.limit_train_batches=3"]
    with pytest.raises(UserError, match=r"val_check_interval \(4\) exceeds the 3 steps"):
        run("seldom", *epoch, "trainer.val_check_interval=4", "logger=none", "callbacks=none")


def test_a_checkpoint_of_another_shape_is_refused(run):
    run_dir = run("first", "trainer.max_steps=1", "logger=none")
    with pytest.raises(ValueError, match=r"does not fit this model: blocks.0.ffn.experts.down is \(8, 16, 32\)"):
        run("second", "moe.num_experts=4", f"ckpt_path={run_dir}/checkpoints/last.ckpt")


@pytest.mark.parametrize("balance", ["none", "segment", "sequence", "global_batch", "ema", "loss_free"])
def test_every_balancing_scheme_trains(run, balance):
    run_dir = run(balance, f"balance={balance}", "trainer.max_steps=2", "logger=csv", "callbacks=none")
    assert pd.read_csv(run_dir / "metrics.csv")["train/loss"].notna().any()


@pytest.mark.parametrize("key", PAPER)
def test_every_model_of_the_paper_trains_at_nano_size(run, key):
    small = ["model=nano", "trainer=cpu", "global_batch_size=8", "data.num_workers=0", "callbacks=none", "logger=csv"]
    run_dir = run(key, "experiment=paper", f"arm={key}", *small, "trainer.max_steps=2", moe=[])
    assert pd.read_csv(run_dir / "metrics.csv")["train/loss"].notna().sum() == 2
    checkpoint = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["DomainDataModule"]["num_samples"] == 2 * 8


@pytest.mark.corpus
def test_a_few_steps_on_the_real_corpus_lower_the_loss(tmp_path):
    short = ["data.sequence_length=128", "data.batch_size=4", "data.validation_samples=1", "optimizer.warmup_steps=3"]
    quiet = ["logger=csv", "callbacks=none", "trainer.enable_progress_bar=false", "threads=1"]
    run_training(tmp_path, *short, *quiet, "trainer.max_steps=20")
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    losses = metrics["val/loss"].dropna()
    assert losses.iloc[-1] < losses.iloc[0] - 0.5
    assert len(metrics.filter(like="val/loss/").columns) == 11


def test_batches_that_repeat_cannot_be_looked_ahead_to(run):
    with pytest.raises(UserError, match=r"use balance\.estimate=prefix"):
        run("overfit", "balance=global_batch", "balance.estimate=exact", "trainer.overfit_batches=1")


def test_looking_ahead_foresees_exactly_and_the_log_shows_what_estimates_would_miss(run):
    exact = ["balance=global_batch", "balance.estimate=exact", "trainer.accumulate_grad_batches=3"]
    run_dir = run("exact", *exact, "trainer.max_steps=3", "logger=csv", "callbacks=none")
    errors = pd.read_csv(run_dir / "metrics.csv").filter(like="balance_estimate_error").dropna()
    assert len(errors) == 3
    assert (errors["train/balance_estimate_error/exact"] == 0).all()
    assert (errors["train/balance_estimate_error/prefix"] > 0).all()
