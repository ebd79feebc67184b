"""Every config file composes, and what it names can be built."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from moe_toy.evaluation import command
from moe_toy.training.build import build_callbacks, build_model
from moe_toy.training.config import OptimizerConfig
from tests.paths import CONF

ON_CPU = ["trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.devices=1"]
FILES = sorted(
    path.relative_to(CONF).with_suffix("") for path in CONF.glob("*/**/*.yaml") if path != CONF / "data" / "base.yaml"
)
TARGETS = [path for path in FILES if path.parent.name == "target"]
OFFLOADS = [path for path in FILES if path.parent.name == "offload"]
OF_EVALUATION = [*TARGETS, *OFFLOADS, Path("hydra/evaluate"), Path("data/run")]
OF_TRAINING = [path for path in FILES if path not in OF_EVALUATION]


@pytest.fixture
def compose_run(tmp_path):
    """Compose as on the command line, with a temporary run directory."""

    def make(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("train", [*overrides, f"run_dir={tmp_path}", "name=test"])

    yield make
    HydraConfig.instance().cfg = None


@pytest.mark.parametrize("path", OF_TRAINING, ids=str)
def test_every_config_file_composes_and_builds(compose_run, path, tmp_path):
    group, option = path.parts[0], "/".join(path.parts[1:])
    overrides = [
        f"{group}={option}",
        "trainer.accelerator=cpu",
        "trainer.precision=32-true",
        "trainer.devices=1",
    ]
    if group == "data":
        overrides += [f"data.root={tmp_path}", *(["data.source.path=" + str(tmp_path)] if path.name == "files" else [])]
    cfg = compose_run(*overrides)
    with torch.device("meta"):
        model = build_model(cfg)
    assert model.config.vocab_size == cfg.data.vocab_size
    OptimizerConfig(**cfg.optimizer)
    callbacks = build_callbacks(cfg)
    trainer = instantiate(cfg.trainer, callbacks=callbacks, logger=list(instantiate(cfg.logger).values()))
    assert set(callbacks) <= set(trainer.callbacks)


@pytest.mark.parametrize("path", TARGETS, ids=str)
def test_every_target_of_an_evaluation_builds(path):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("evaluate", [f"target={path.name}", "++target.path=somewhere"])
    if path.name == "runs":
        del cfg.target.path
    target = command.build(cfg)
    assert all(callable(getattr(target, name)) for name in ("check", "prepare", "run", "write_report"))


@pytest.mark.parametrize("path", OFFLOADS, ids=str)
def test_every_store_of_experts_builds(path):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("evaluate", [f"offload={path.name}", "target.path=somewhere"])
    offloading = command.build(cfg).offloading
    assert (offloading and offloading.settings.store) == (None if path.name == "none" else path.name)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], "RunText"),
        (["data=corpus"], "DomainDataModule"),
        (["target=huggingface"], "DomainDataModule"),
        (["target=huggingface", "data=run"], "RunText"),
    ],
    ids=str,
)
def test_a_checkpoint_is_measured_on_the_text_of_its_run_other_models_on_the_corpus(overrides, expected):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("evaluate", overrides)
    assert cfg.data._target_.endswith(f".{expected}")


def test_a_variant_of_moe_changes_nothing_else(compose_run):
    baseline, shared = compose_run(), compose_run("moe=shared_experts")
    changed = {key for key in baseline.moe if baseline.moe[key] != shared.moe[key]}
    assert changed == {"num_experts", "top_k", "num_shared_experts"}
    assert all(baseline[group] == shared[group] for group in ("optimizer", "data", "trainer"))


def test_longer_runs_differ_from_the_first_rung_of_the_ladder_in_their_steps_only(compose_run):
    short, long = (compose_run(f"sweep={name}", "model=nano") for name in ("ladder", "longer"))
    assert long.trainer.max_steps == 1600
    assert (short.data.batch_size, short.global_batch_size) == (2, 8)  # else the global batch were the micro-batch
    short.trainer.max_steps, short.sweep_name = long.trainer.max_steps, long.sweep_name
    assert short == long


@pytest.mark.parametrize("name", ["corpus", "files", "olmoe_mix", "redpajama_sample"])
def test_data_configs_say_only_what_differs_from_the_common_ones(name):
    common, own = (OmegaConf.load(CONF / "data" / f"{file}.yaml") for file in ("base", name))
    assert own.defaults == ["base", "_self_"]
    repeated = [
        key for key in common if key in own and OmegaConf.to_container(own)[key] == OmegaConf.to_container(common)[key]
    ]
    assert not repeated
