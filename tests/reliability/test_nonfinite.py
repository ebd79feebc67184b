"""NaN and infinity never reach the weights."""

import logging
import os
import signal

import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback

from moe_toy.balance.base import LoadBalancer
from moe_toy.callbacks.load_balance import LoadBalanceCallback, warn_of_collapse
from moe_toy.errors import UserError
from moe_toy.model.transformer import MoETransformer
from moe_toy.routing import TokenBatch
from moe_toy.training.lit_moe import LitMoE
from moe_toy.training.nonfinite import find_nonfinite
from tests.reliability.compare import assert_same_end

SHORT = ["trainer.max_steps=6", "trainer.val_check_interval=2", "trainer.accumulate_grad_batches=1", "callbacks=none"]
SKIP = ["callbacks.nonfinite.on_nonfinite=skip", "callbacks.nonfinite.max_skips=2"]


def weights(run_dir, name="last.ckpt"):
    return torch.load(run_dir / "checkpoints" / name, weights_only=True)["state_dict"]


@pytest.fixture
def poison_loss(monkeypatch):
    """`poison_loss(value, 5)`: the loss of the fifth micro-batch is multiplied by it."""

    def poison(value: float, *numbers: int) -> None:
        original, calls = LitMoE.training_step, []

        def step(self, batch, batch_idx):
            calls.append(None)
            output = original(self, batch, batch_idx)
            return output | {"loss": output["loss"] * value} if len(calls) in numbers else output

        monkeypatch.setattr(LitMoE, "training_step", step)

    return poison


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
def test_a_bad_loss_stops_the_run_before_the_update(run, tmp_path, poison_loss, value):
    poison_loss(value, 3)
    with pytest.raises(UserError) as stop:
        run(tmp_path / "run", *SHORT)
    for part in (
        "step 3: the gradient of unembedding.weight is not finite",
        "step-000000002.ckpt",
        "on_nonfinite=skip",
    ):
        assert part in str(stop.value)
    run(tmp_path / "whole", *SHORT)
    run(tmp_path / "run", *SHORT, "ckpt_path=auto")
    for name, expected in weights(tmp_path / "whole").items():
        assert torch.equal(weights(tmp_path / "run")[name], expected)


def test_the_norm_that_is_looked_at_is_the_one_to_clip_by(run, tmp_path, monkeypatch):
    """To the bit, with one pass over the gradients less."""
    short = [*SHORT, "trainer.max_steps=2", "trainer.gradient_clip_val=0.01"]
    run(tmp_path / "twice", *short, "callbacks.nonfinite=null")
    monkeypatch.delattr(torch.nn.utils, "clip_grad_norm_")
    run(tmp_path / "once", *short)
    for name, expected in weights(tmp_path / "twice").items():
        assert torch.equal(weights(tmp_path / "once")[name], expected)


class LargeGradients(Callback):
    """What a user's own callback may do between that look and clipping. `.data` hides it from PyTorch."""

    def __init__(self, hidden: bool) -> None:
        self.hidden = hidden

    def on_before_optimizer_step(self, trainer, module, optimizer):
        for parameter in module.parameters():
            if parameter.grad is not None:
                (parameter.grad.data if self.hidden else parameter.grad).mul_(1000)


@pytest.mark.parametrize("hidden", [False, True])
def test_gradients_that_were_changed_since_are_clipped_by_their_own_norm(run, tmp_path, hidden):
    short = [*SHORT, "trainer.max_steps=2", "trainer.gradient_clip_val=0.01"]
    large = f"+callbacks.large={{_target_:{__name__}.LargeGradients,hidden:{hidden}}}"
    run(tmp_path / "looked", *short, large)
    run(tmp_path / "never_looked", *short, large, "callbacks.nonfinite=null")
    for name, expected in weights(tmp_path / "never_looked").items():
        assert torch.equal(weights(tmp_path / "looked")[name], expected)


DEFERRED = "callbacks.nonfinite.deferred=true"


def test_a_bad_loss_that_is_heard_of_later_stops_the_run_with_the_weights_before(run, tmp_path, poison_loss):
    poison_loss(float("nan"), 3)
    with pytest.raises(UserError, match=r"step 3: the loss or a gradient is not finite.*step-000000002.ckpt"):
        run(tmp_path / "run", *SHORT, DEFERRED)
    assert not (tmp_path / "run" / "checkpoints" / "step-000000004.ckpt").exists()


def test_a_bad_step_is_heard_of_before_a_checkpoint(run, tmp_path, poison_loss):
    poison_loss(float("nan"), 4)  # a validation and a checkpoint follow
    with pytest.raises(UserError, match=r"step 4: .*step-000000002.ckpt"):
        run(tmp_path / "run", *SHORT, DEFERRED)
    assert not (tmp_path / "run" / "checkpoints" / "step-000000004.ckpt").exists()


@pytest.mark.parametrize("balance", ["loss_free", "ema"])
def test_the_device_skips_a_step_as_the_host_does(run, tmp_path, poison_loss, balance):
    poison_loss(float("inf"), 3, 4, 9, 10)  # of each of two runs
    at_once = run(tmp_path / "at_once", *SHORT, *SKIP, f"balance={balance}")
    later = run(tmp_path / "later", *SHORT, *SKIP, DEFERRED, f"balance={balance}")
    assert_same_end(at_once, later, but_for=["train/skipped_steps"])  # which counts a step later


@pytest.mark.parametrize(
    ("name", "value", "place"),
    [
        ("blocks.1.ffn_norm.weight", float("nan"), "weight blocks.1.ffn_norm.weight is not finite"),
        ("blocks.1.ffn_norm.weight", 3e38, "the output of blocks.1.ffn_norm is not finite"),
    ],
    ids=["weight", "output"],
)
def test_the_layer_is_named(make_config, name, value, place):
    config = make_config()
    model = MoETransformer(config, LoadBalancer(num_layers=2, num_experts=config.moe.num_experts))
    with torch.no_grad():
        model.get_parameter(name).fill_(value)
    assert find_nonfinite(model, [TokenBatch(torch.arange(8)[None], torch.zeros(1, dtype=torch.int64))]) == place
    assert model.training


@pytest.mark.parametrize("value", [float("inf"), 1e30], ids=str)
def test_a_bad_gradient_does_not_reach_weights_that_are_updated_in_the_backward_pass(run, tmp_path, poison_loss, value):
    in_backward = ["optimizer=adafactor_in_backward", "trainer.gradient_clip_val=null"]
    poison_loss(value, 3)
    with pytest.raises(UserError, match=r"step 3: the gradient of .* is not finite; .*step-000000002.ckpt"):
        run(tmp_path / "run", *SHORT, *in_backward)
    run(tmp_path / "run", *SHORT, *in_backward, "ckpt_path=auto")
    assert all(torch.isfinite(x).all() for x in weights(tmp_path / "run").values())


@pytest.mark.parametrize("balance", ["micro_batch", "loss_free", "ema", "global_batch"])
def test_a_step_can_be_skipped(run, tmp_path, poison_loss, caplog, balance):
    caplog.set_level(logging.WARNING)
    poison_loss(float("nan"), 3, 4)
    run(tmp_path / "run", *SHORT, *SKIP, "callbacks.checkpoint.keep_last=9", f"balance={balance}")
    assert "this step is skipped" in caplog.text
    before, after = weights(tmp_path / "run", "step-000000002.ckpt"), weights(tmp_path / "run", "step-000000004.ckpt")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(after["model.embedding.weight"], weights(tmp_path / "run")["model.embedding.weight"])
    assert pd.read_csv(tmp_path / "run" / "metrics.csv")["train/skipped_steps"].max() == 2


def test_a_run_that_skipped_a_step_continues_exactly(run, tmp_path, poison_loss, at_call):
    poison_loss(float("nan"), 3, 9)  # the third step of each run
    whole = run(tmp_path / "whole", *SHORT, *SKIP)
    at_call("training_step", 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        run(tmp_path / "run", *SHORT, *SKIP)
    run(tmp_path / "run", *SHORT, *SKIP, "ckpt_path=auto")
    assert_same_end(whole, tmp_path / "run")


def test_too_many_skips_in_a_row_stop_the_run(run, tmp_path, poison_loss):
    poison_loss(float("nan"), 3, 4, 5)
    with pytest.raises(UserError, match="step 5: "):
        run(tmp_path / "run", *SHORT, *SKIP)


def test_collapse_of_routing_is_a_warning(caplog):
    warn_of_collapse({0: 0.2, 3: 0.5}, warn_above=0.25)
    assert [record.getMessage() for record in caplog.records] == [
        "routing collapses: 50 % of the experts of layer 3 serve no token"
    ]


def test_collapse_is_seen_in_validation(curves, trace, caplog):
    trace.expert_ids[:] = torch.arange(2)  # of six
    curves(LoadBalanceCallback(segment_length=16, per_layer=False, warn_dead_fraction=0.25), trace)
    assert len(caplog.records) == 3
