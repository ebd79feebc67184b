"""Runs that can be struck by a fault, and continued."""

import pytest

from moe_toy.training.lit_moe import LitMoE
from tests.callbacks.conftest import curves, subject, trace  # noqa: F401
from tests.model.conftest import make_config  # noqa: F401
from tests.small_run import EIGHT_EXPERTS, SMALL
from tests.train_run import run_training


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def run(texts, cache):
    """`run(folder, "trainer.max_steps=3")`: train there; the folder may hold a run already."""

    def train_in(run_dir, *overrides: str):
        places = [f"data.source.path={texts}", f"data.root={cache}"]
        return run_training(run_dir, *SMALL, *places, *EIGHT_EXPERTS, "logger=csv", *overrides)

    return train_in


@pytest.fixture
def at_call(monkeypatch):
    """`at_call("training_step", 5, fault)`: call `fault()` within the fifth call of that hook."""

    def strike(hook: str, number: int, fault) -> None:
        original, calls = getattr(LitMoE, hook), []

        def with_fault(self, *args, **kwargs):
            calls.append(None)
            if len(calls) == number:
                fault()
            return original(self, *args, **kwargs)

        monkeypatch.setattr(LitMoE, hook, with_fault)

    return strike
