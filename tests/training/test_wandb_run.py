"""Weights & Biases is asked for by the config, and by `WANDB_MODE` above it; nothing stays in the environment."""

import os
from unittest.mock import MagicMock

import pytest
import wandb

from moe_toy.training.wandb_run import WandbRun


@pytest.fixture
def asked(monkeypatch):
    """What `wandb.init` is called with."""
    calls = []

    def init(**options):
        calls.append(options)
        return MagicMock()

    monkeypatch.setattr(wandb, "init", init)
    return calls


def test_an_offline_run_does_not_make_the_next_one_so(asked, monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_MODE")
    before = dict(os.environ)
    for offline in (True, False, True):
        _ = WandbRun(save_dir=tmp_path, offline=offline).experiment
    assert [options["mode"] for options in asked] == ["offline", "online", "offline"]
    assert dict(os.environ) == before


@pytest.mark.parametrize("mode", ["disabled", "offline", "online"])
@pytest.mark.parametrize("offline", [True, False])
def test_what_a_user_says_in_the_environment_wins(asked, monkeypatch, tmp_path, mode, offline):
    monkeypatch.setenv("WANDB_MODE", mode)
    _ = WandbRun(save_dir=tmp_path, offline=offline).experiment
    assert asked[0]["mode"] == mode


def test_what_has_no_effect_is_not_said_and_the_rest_is_passed_on(asked, tmp_path):
    _ = WandbRun(save_dir=tmp_path, offline=True, project="mine", settings={"x_disable_stats": True}).experiment
    assert "anonymous" not in asked[0]
    assert asked[0]["project"] == "mine"
    assert asked[0]["settings"] == {"silent": True, "x_disable_stats": True}
