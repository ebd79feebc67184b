"""Which jobs a command line stands for, and where each arm of a sweep is kept."""

from pathlib import Path

import pytest
from hydra import initialize_config_dir

from moe_toy.command_line.jobs import compose_sweep, jobs
from moe_toy.errors import UserError
from tests.paths import CONF

FEWER_ARMS = {
    "paper": [],
    "smoke": [],
    "shared_experts": [],
    "balance_horizon": ["balance=segment,ema"],
    "balance": ["balance=segment,global_batch", "balance.coefficient=0.1"],
    "experts": ["moe.num_experts=16,128", "moe.top_k=8"],
}


@pytest.fixture
def sweep_of(monkeypatch, tmp_path):
    """`sweep_of("sweep=smoke")`: the sweep that these arguments name."""
    monkeypatch.chdir(tmp_path)

    def compose(*arguments: str):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose_sweep("train", arguments)

    return compose


def directories(sweep) -> list[str]:
    return [arm.directory.relative_to(Path.cwd()).as_posix() for arm in sweep.arms]


def keep(arm) -> None:
    """Leave behind what a started arm does."""
    import yaml

    arm.directory.mkdir(parents=True)
    (arm.directory / "config.yaml").write_text(yaml.safe_dump(arm.config))


def test_arguments_replace_the_grid_of_the_config():
    grid = {"arm": "baseline,nolb", "seed": "1,2"}
    assert list(jobs(["seed=3", "data=files"], grid)) == [
        ["arm=baseline", "seed=3", "data=files"],
        ["arm=nolb", "seed=3", "data=files"],
    ]


def test_arms_are_kept_under_the_sweep_by_what_they_vary(sweep_of):
    sweep = sweep_of("sweep=smoke", "seed=1,2", "trainer.max_steps=7", "hydra/launcher=basic")
    assert directories(sweep) == [
        "outputs/sweeps/smoke/arm=baseline,seed=1",
        "outputs/sweeps/smoke/arm=baseline,seed=2",
        "outputs/sweeps/smoke/arm=nolb,seed=1",
        "outputs/sweeps/smoke/arm=nolb,seed=2",
    ]
    assert [(arm.name, arm.seed) for arm in sweep.arms] == [("baseline", 1), ("baseline", 2), ("nolb", 1), ("nolb", 2)]
    assert all(arm.config["trainer"]["max_steps"] == 7 for arm in sweep.arms)
    assert [arm.config["balance"]["coefficient"] for arm in sweep.arms] == [0.01, 0.01, 0.0, 0.0]


def test_a_part_of_a_grid_is_kept_where_the_whole_is(sweep_of):
    (arm,) = sweep_of("sweep=smoke", "arm=nolb").arms
    assert arm.directory.name == "arm=nolb"


def test_a_sweep_over_anything_needs_only_a_name(sweep_of):
    sweep = sweep_of("sweep=grid", "sweep_name=mine", "moe.top_k=2,4")
    assert directories(sweep) == ["outputs/sweeps/mine/moe.top_k=2", "outputs/sweeps/mine/moe.top_k=4"]
    assert [arm.name for arm in sweep.arms] == ["moe.top_k=2", "moe.top_k=4"]


def test_every_sweep_is_tried():
    assert {path.stem for path in (CONF / "sweep").glob("*.yaml")} == {*FEWER_ARMS, "grid"}


@pytest.mark.parametrize("name", FEWER_ARMS)
def test_arms_of_a_seed_are_paired_and_every_arm_has_a_model(sweep_of, name):
    sweep = sweep_of(f"sweep={name}", "seed=1", *FEWER_ARMS[name])
    sweep.check()
    assert len({str(arm.config["data"]) for arm in sweep.arms}) == 1
    tokens = {
        (arm.config["trainer"]["max_steps"], arm.config["global_batch_size"], arm.config["data"]["batch_size"])
        for arm in sweep.arms
    }
    assert len(tokens) == 1
    assert all(arm.flops_per_token > 0 for arm in sweep.arms)
    assert {arm.config["logger"]["wandb"]["group"] for arm in sweep.arms} == {name}


@pytest.mark.parametrize("name", ["balance", "balance_horizon"])
def test_balance_sweeps_cut_a_default_step_in_four(sweep_of, name):
    default, arm = (sweep_of(f"sweep={sweep}", "seed=1").arms[0].config for sweep in ("paper", name))
    assert arm["global_batch_size"] == 4 * arm["data"]["batch_size"] == default["data"]["batch_size"]


def test_a_changed_config_is_refused_with_the_difference(sweep_of):
    keep(sweep_of("sweep=smoke").arms[0])
    with pytest.raises(UserError, match=r"arm=baseline was started .*: trainer.max_steps was 4, is now 9; undo"):
        sweep_of("sweep=smoke", "trainer.max_steps=9").check()


def test_what_changes_no_result_may_change(sweep_of):
    keep(sweep_of("sweep=smoke").arms[0])
    sweep_of("sweep=smoke", "threads=3", "logger=csv", "trainer.enable_progress_bar=false").check()


def test_a_sweep_may_be_moved(sweep_of, tmp_path, monkeypatch):
    keep(sweep_of("sweep=smoke").arms[0])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "outputs").rename(tmp_path / "elsewhere" / "outputs")
    monkeypatch.chdir(tmp_path / "elsewhere")
    sweep_of("sweep=smoke").check()


def test_a_checkpoint_is_no_choice_of_the_user(sweep_of):
    with pytest.raises(UserError, match="ckpt_path is chosen by the sweep"):
        sweep_of("sweep=smoke", "ckpt_path=last.ckpt").check()
