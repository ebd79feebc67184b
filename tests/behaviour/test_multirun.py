"""What Hydra can say on a command line is understood in a run, a multirun and a sweep."""

from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from tests.paths import CONF
from tests.small_run import EIGHT_EXPERTS, SMALL

MODES = [["seed=3"], ["-m", "seed=1,2"], ["sweep=grid", "sweep_name=mine", "seed=1,2"]]


@pytest.fixture
def jobs(command, texts, tmp_path, monkeypatch):
    """`jobs("-m", "seed=1,2")`: the configs that the jobs of a command see; nothing is trained."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, name: str = "train", small: bool = True) -> list:
        seen = []
        main = hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)(
            lambda cfg: seen.append(OmegaConf.create(OmegaConf.to_container(cfg, resolve=True)))
        )
        places = [f"data.source.path={texts}", f"data.root={tmp_path / 'cache'}", "logger=csv"]
        options = [argument for argument in arguments if argument.startswith("-")]  # which argparse wants first
        keys = [argument for argument in arguments if argument not in options]
        code = command(name, *options, *([*SMALL, *EIGHT_EXPERTS, *places] if small else []), *keys, main=main)
        assert code in (0, 1)  # of a sweep whose arms were not trained
        return seen

    return run


def test_glob_chooses_among_configs(jobs):
    found = jobs("-m", "moe=glob([few*,many*])", "moe.num_experts=16")
    assert [cfg.moe.top_k for cfg in found] == [2, 2, 2]
    assert len({cfg.run_dir for cfg in found}) == 3


@pytest.mark.parametrize("how", ["--config-dir", "searchpath"])
@pytest.mark.parametrize("mode", MODES, ids=len)
def test_experiments_of_a_users_own_are_found(jobs, tmp_path, how, mode):
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text("# @package _global_\ntrainer:\n  max_steps: 77\n")
    where = [f"--config-dir={tmp_path / 'own'}"] if how == "--config-dir" else [f"hydra.searchpath=[{tmp_path}/own]"]
    found = jobs(*where, "experiment=mine", *mode)
    assert {cfg.trainer.max_steps for cfg in found} == {77}
    assert len(found) == (1 if mode == ["seed=3"] else 2)


@pytest.mark.parametrize("mode", MODES, ids=len)
def test_a_callback_is_removed(jobs, mode):
    for cfg in jobs("~callbacks.load_balance", *mode):
        assert "load_balance" not in cfg.callbacks
        assert "consistency" in cfg.callbacks


@pytest.mark.parametrize("mode", [["seed=3"], ["-m", "seed=1,2"]], ids=len)
def test_an_entry_that_is_null_passes_all_checks(jobs, mode):
    assert jobs("callbacks.load_balance=null", "logger.csv=null", *mode)


def test_jobs_that_would_share_a_directory_have_their_own(jobs, texts, tmp_path):
    (tmp_path / "again").symlink_to(texts)
    found = jobs("-m", f"data.source.path={texts},{tmp_path / 'again'}")
    assert len({cfg.run_dir for cfg in found}) == len({cfg.name for cfg in found}) == 2
    found = jobs("-m", "name=mine", "seed=1,2")
    assert [Path(cfg.run_dir).name for cfg in found] == ["mine,seed=1", "mine,seed=2"]
    assert [cfg.name for cfg in found] == ["mine", "mine"]


def test_evaluations_have_a_folder_each(jobs, tmp_path, monkeypatch):
    monkeypatch.setattr("moe_toy.evaluation.command.check", lambda cfg: None)
    monkeypatch.setattr("moe_toy.evaluation.command.prepare", lambda cfg: None)
    found = jobs("-m", "target.path=A,B", name="evaluate", small=False)
    assert [cfg.target.path for cfg in found] == ["A", "B"]
    assert [Path(cfg.out_dir).name for cfg in found] == ["target.path=A", "target.path=B"]
    found = jobs("-m", "target.path=A,B", "out_dir=reports", name="evaluate", small=False)
    assert [Path(cfg.out_dir) for cfg in found] == [Path("reports/target.path=A"), Path("reports/target.path=B")]
    found = jobs("-m", "target.path=A", "out_dir=a,b", name="evaluate", small=False)
    assert [cfg.out_dir for cfg in found] == ["a", "b"]


def test_a_mistake_in_the_third_of_four_jobs_stops_the_first(refusal):
    line = refusal("train", "-m", "moe.top_k=1,2,65,4")
    assert "moe.top_k (65) cannot exceed" in line


@pytest.mark.parametrize("key", ["name", "sweep_name"])
def test_a_name_that_looks_like_a_number_stays_text(jobs, key):
    mode = ["sweep=grid", "seed=1,2"] if key == "sweep_name" else ["seed=1"]
    assert {cfg[key] for cfg in jobs(f"{key}=2024_01", *mode)} == {"2024_01"}


def test_dashes_before_a_key_are_told(refusal):
    assert "keys have no dashes; write moe.top_k=4" in refusal("train", "--moe.top_k=4")


def test_a_name_that_is_not_utf8_is_told(refusal):
    assert "not UTF-8" in refusal("train", "data=files", "data.source.path=/tmp/\udcff")
