"""Runs that can be struck by a fault, and continued."""

import pytest
from hydra import compose, initialize_config_dir

import train
from moe_toy.training import preflight
from moe_toy.training.lit_moe import LitMoE
from tests.callbacks.conftest import curves, subject, trace  # noqa: F401
from tests.model.conftest import make_config  # noqa: F401
from tests.paths import CONF
from tests.small_run import EIGHT_EXPERTS, SMALL


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def run(texts, cache):
    """`run(folder, "trainer.max_steps=3")`: train there; the folder may hold a run already."""

    def train_in(run_dir, *overrides: str):
        run_dir.mkdir(exist_ok=True)
        places = [f"data.source.path={texts}", f"data.root={cache}", f"run_dir={run_dir}", f"name={run_dir.name}"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", [*SMALL, *places, *EIGHT_EXPERTS, "logger=csv", *overrides])
        preflight.check(cfg)
        preflight.prepare(cfg)
        train.main.__wrapped__(cfg)
        return run_dir

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
