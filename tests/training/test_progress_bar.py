from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch.callbacks import ProgressBar

from moe_toy.training.build import build_callbacks
from moe_toy.training.progress_bar import TrainingProgress
from tests.paths import CONF

LOGGED = {"train/loss": 8.24432, "train/tokens_per_s": 2168.984, "train/lr": 0.1}


def test_only_loss_and_speed_are_shown(trainer, recorder, monkeypatch):
    monkeypatch.setattr(type(trainer), "progress_bar_metrics", LOGGED)
    assert TrainingProgress().get_metrics(trainer, recorder) == {"loss": "8.244", "tokens/s": "2,169"}


def test_on_a_gpu_only_logged_steps_are_read(trainer, recorder, monkeypatch):
    reads, connector = [], SimpleNamespace(should_update_logs=True)
    monkeypatch.setattr(type(trainer), "progress_bar_metrics", property(lambda self: reads.append(1) or LOGGED))
    monkeypatch.setattr(trainer, "_logger_connector", connector)
    bar = TrainingProgress()
    monkeypatch.setattr(type(recorder), "device", torch.device("cuda"), raising=False)
    shown = bar.get_metrics(trainer, recorder)
    assert shown["tokens/s"] == "2,169"
    connector.should_update_logs = False
    assert bar.get_metrics(trainer, recorder) == shown
    assert len(reads) == 1


@pytest.mark.parametrize("enabled", [True, False])
def test_the_bar_can_be_turned_off(enabled, tmp_path):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [f"trainer.enable_progress_bar={str(enabled).lower()}", f"run_dir={tmp_path}", "name=test"]
        callbacks = build_callbacks(compose("train", overrides))
    assert any(isinstance(callback, ProgressBar) for callback in callbacks) is enabled
