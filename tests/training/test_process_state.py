"""A run leaves its process as it found it."""

import logging
import os
import random
import signal
import warnings

import numpy as np
import pytest
import torch

import train
from moe_toy.errors import STOP_SIGNALS
from moe_toy.training.process_state import process_restored
from moe_toy.training.session import TALKATIVE


def state_of_process() -> dict:
    return {
        "environment": dict(os.environ),
        "random": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),
        "torch": torch.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
        "warnings": list(warnings.filters),
        "levels": {name: logging.getLogger(name).level for name in TALKATIVE},
        "handlers": {number: signal.getsignal(number) for number in STOP_SIGNALS},
        "dtype": torch.get_default_dtype(),
        "precision": torch.get_float32_matmul_precision(),
        "grad": torch.is_grad_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


@pytest.mark.parametrize(
    "overrides",
    [
        ["logger=wandb", "trainer.precision=bf16-true", "trainer.detect_anomaly=true"],
        ["logger=csv", "+trainer.deterministic=true", "trainer.precision=64-true"],
    ],
    ids=lambda overrides: overrides[-1],
)
def test_a_run_puts_back_all_that_it_sets(run, tmp_path, monkeypatch, overrides):
    states, original = [], train.run

    def watched(cfg) -> None:
        states.append(state_of_process())
        original(cfg)
        states.append(state_of_process())

    monkeypatch.setattr(train, "run", watched)
    run(tmp_path / "run", *overrides, "callbacks=none", "trainer.max_steps=2", "seed=7", "threads=2")
    before, after = states
    assert [name for name in before if before[name] != after[name]] == []


def leave_behind():
    os.environ["LEFT_BEHIND"] = "1"
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.set_grad_enabled(False)
    warnings.filterwarnings("ignore", message="left behind")
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    raise KeyError


def test_what_fails_is_put_back_too():
    before = state_of_process()
    with pytest.raises(KeyError), process_restored():
        leave_behind()
    assert state_of_process() == before
