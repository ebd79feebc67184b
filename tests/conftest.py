"""Shared test set-up: two threads at most, no network, no telemetry; text for whole runs."""

import os

import pytest

from tests.small_run import write_texts

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """A folder of two domains."""
    folder = tmp_path_factory.mktemp("texts")
    write_texts(folder)
    return folder
