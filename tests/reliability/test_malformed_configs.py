"""Every key of the default config with values that it cannot have: one line each, before anything is created."""

import copy
import os
import subprocess
import sys
from contextlib import suppress

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict

from moe_toy.checks.mistakes import MISTAKES, explain, flat_keys
from moe_toy.training import preflight
from tests.paths import CONF, ROOT

MAY_BE_ANYTHING = {"name", "run_dir", "model.moe", "trainer.devices"}
MAY_BE_ANYTHING |= {f"logger.wandb.{key}" for key in ("group", "job_type", "tags")}  # handed on to wandb.init


def default_config() -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", ["run_dir=nowhere", "name=test"])


def leaves(config, place=""):
    for key, value in config.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{place}{key}.")
        else:
            yield f"{place}{key}", value


def bad_values(value) -> list[object]:
    """Another type, and what is out of range for nearly all numbers."""
    if isinstance(value, bool):
        return ["perhaps", 2]
    if isinstance(value, int | float):
        return ["abc", -3, [1]]
    return ["abc"] if isinstance(value, list) else [{"a": 1}]


CONFIG = default_config()
CASES = [
    (key, bad)
    for key, value in leaves(OmegaConf.to_container(CONFIG, resolve=False))
    if key not in MAY_BE_ANYTHING and not key.endswith("_")
    for bad in bad_values(value)
]
OF_CONSTRUCTORS = ("callbacks.", "logger.", "trainer.")  # these have defaults, or tell what they lack
REMOVED = [
    key
    for key in flat_keys(OmegaConf.to_container(CONFIG, resolve=False))
    if key not in MAY_BE_ANYTHING and not key.startswith(OF_CONSTRUCTORS) and not key.endswith("_")
]
REMOVED += ["trainer.max_steps", "trainer.overfit_batches", "trainer.enable_progress_bar"]
CONTRADICTIONS = [
    {"global_batch_size": "abc"},
    {"global_batch_size": 0},
    {"trainer.max_steps": -1, "trainer.max_epochs": -1},
    {"optimizer.min_lr": 0.1, "optimizer.lr": 0.01},
    {"moe.top_k": 65},
    {"moe.num_experts": 60},
    {"moe.normalize_weights": False},
    {"model.num_heads": 3},
    {"model.num_kv_heads": 3},
    {"data.sequence_length": 5000},
    {"data.validation_length": 5000},
    {"ckpt_path": "a.ckpt", "init_from": "b.ckpt"},
    {"init_from": "missing.ckpt"},
    {"data.tokenizer": "missing.json"},
    {"data.source.archives": "missing"},
    {"data.weights": {"books": -1}},
    {"data.weights": {"books": 0}},
    {"data.domains": []},
    {"data.domains": ["books", "books"]},
    {"trainer.devices": 0},
    {"trainer.devices": "all"},
    {"trainer._target_": "lightning.pytorch.Trainr"},
    {"callbacks.nonfinite.on_nonfinite": "ignore"},
    {"callbacks.nonfinite.deferred": "maybe"},
    {"trainer.precision": "31-true"},
    {"trainer.max_time": {"hour": 1}},
]


def changed(changes: dict[str, object]) -> DictConfig:
    cfg = copy.deepcopy(CONFIG)
    for key, value in changes.items():
        OmegaConf.update(cfg, key, value, merge=False)
    return cfg


def without(key: str) -> DictConfig:
    cfg = copy.deepcopy(CONFIG)
    section, _, name = key.rpartition(".")
    with open_dict(cfg):
        del (OmegaConf.select(cfg, section) if section else cfg)[name]
    return cfg


def complaint(cfg: DictConfig) -> str:
    with pytest.raises(MISTAKES) as stop:
        preflight.check(cfg)
    return explain(stop.value, [])


WITHOUT_LIGHTNING = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name == "lightning":
            raise RuntimeError("it takes seconds")

sys.meta_path.insert(0, Refuse())
"""


def test_150_are_found_before_lightning_is_loaded(tmp_path):
    """Which alone takes longer than the 3 seconds that a mistake may take."""
    code = (
        WITHOUT_LIGHTNING + "import tests.reliability.test_malformed_configs as t; print(t.found_without_lightning())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) >= 150


def found_without_lightning() -> int:
    configs = [changed({key: value}) for key, value in CASES if not key.startswith(("data.", "callbacks.", "logger."))]
    configs += [without(key) for key in REMOVED if not key.startswith("data.")]
    found = 0
    for cfg in configs:
        with suppress(RuntimeError):
            complaint(cfg)
            found += 1
    return found


@pytest.mark.parametrize(("key", "value"), CASES, ids=str)
def test_a_bad_value_is_named(key, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = complaint(changed({key: value}))
    assert "\n" not in line
    assert key.rpartition(".")[2] in line  # interpolated keys are named by where they are used
    assert "Error in call to target" not in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", REMOVED)
def test_a_removed_key_is_named(key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = complaint(without(key))
    assert "\n" not in line
    assert key.rpartition(".")[2] in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("changes", CONTRADICTIONS, ids=str)
def test_a_contradiction_is_named(changes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = complaint(changed(changes))
    assert "\n" not in line
    assert any(key.rpartition(".")[2] in line for key in changes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("argument", ["moe.topk=4", "trainer.max_steps=abc"])
def test_a_process_ends_with_one_line_and_exit_code_2(argument, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", argument],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
