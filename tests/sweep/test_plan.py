"""What the arms of a command are, and where each is kept."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from moe_toy.errors import UserError
from moe_toy.sweep.plan import plan_sweep
from tests.paths import CONF

FEWER_ARMS = {
    "paper": [],
    "smoke": [],
    "shared_experts": [],
    "balance_horizon": ["balance=segment,ema"],
    "balance": ["balance=segment,global_batch", "balance.coefficient=0.1"],
    "experts": ["moe.num_experts=16,128", "moe.top_k=8"],
    "ladder": ["arm=baseline,global_batch"],
    "longer": ["arm=baseline,global_batch"],
    "locality": ["locality=none,contrast/weak", "balance.coefficient=0.1"],
}


@pytest.fixture
def sweep_of(monkeypatch, tmp_path, command):
    """`sweep_of("sweep=smoke")`: the sweep that these arguments name, of which nothing is checked or trained."""
    monkeypatch.chdir(tmp_path)
    found = []

    def plan(*arguments):
        sweep, _ = plan_sweep(*arguments)
        found.append(sweep)
        raise UserError("planned")

    def compose(*arguments: str):
        monkeypatch.setattr("moe_toy.sweep.plan.plan_sweep", plan)
        assert command("train", *arguments) == 2
        return found.pop()

    return compose


def directories(sweep) -> list[str]:
    return [arm.directory.relative_to(Path.cwd()).as_posix() for arm in sweep.arms]


def keep(arm) -> None:
    """Leave behind what a started arm does."""
    import yaml

    arm.directory.mkdir(parents=True)
    (arm.directory / "config.yaml").write_text(yaml.safe_dump(arm.config))


def test_arguments_replace_the_grid_of_the_config(sweep_of):
    assert directories(sweep_of("sweep=smoke", "arm=share1", "seed=3")) == ["outputs/sweeps/smoke/arm=share1,seed=3"]


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


def test_a_sweep_over_anything_needs_only_a_name(sweep_of):
    sweep = sweep_of("sweep=grid", "sweep_name=mine", "moe.top_k=2,4")
    assert directories(sweep) == ["outputs/sweeps/mine/moe.top_k=2,seed=42", "outputs/sweeps/mine/moe.top_k=4,seed=42"]
    assert [arm.name for arm in sweep.arms] == ["moe.top_k=2", "moe.top_k=4"]


def test_an_arm_that_varies_nothing_but_the_seed_has_a_name(sweep_of):
    sweep = sweep_of("sweep=grid", "sweep_name=mine", "seed=1,2")
    assert [(arm.name, arm.seed) for arm in sweep.arms] == [("base", 1), ("base", 2)]
    assert [arm.directory.name for arm in sweep.arms] == ["seed=1", "seed=2"]


SAME_ARMS = {
    "in another order": ["seed=2,1", "moe.top_k=4,2"],
    "a part of the grid": ["moe.top_k=2", "seed=1"],
    "nothing varied": ["moe.top_k=4", "seed=2"],
    "twice": ["moe.top_k=2,2", "seed=1,1,2"],
    "with what changes no result": ["moe.top_k=2,4", "seed=1,2", "threads=1", "logger=csv", "name=other"],
}


def test_the_same_arm_is_found_whatever_command_asks_for_it(sweep_of, subtests):
    first = sweep_of("sweep=grid", "sweep_name=mine", "moe.top_k=2,4", "seed=1,2")
    first.register()
    known = {(arm.config["moe"]["top_k"], arm.seed): (arm.name, arm.directory) for arm in first.arms}
    for asked, arguments in SAME_ARMS.items():
        with subtests.test(asked):
            again = sweep_of("sweep=grid", "sweep_name=mine", *arguments)
            found = [(arm.config["moe"]["top_k"], arm.seed) for arm in again.arms]
            assert len(set(found)) == len(found)
            assert [(arm.name, arm.directory) for arm in again.arms] == [known[key] for key in found]
            again.register()
            assert len(list(first.directory.iterdir())) == len(first.arms)


def test_an_arm_that_is_new_to_a_part_of_the_grid_is_named_as_the_others_are(sweep_of):
    sweep_of("sweep=grid", "sweep_name=mine", "moe.top_k=2,4", "seed=1").register()
    (arm,) = sweep_of("sweep=grid", "sweep_name=mine", "moe.top_k=8", "seed=1").arms
    assert (arm.name, arm.directory.name) == ("moe.top_k=8", "moe.top_k=8,seed=1")


def test_arms_of_an_earlier_version_are_refused(sweep_of, refusal, tmp_path):
    arm = tmp_path / "outputs" / "sweeps" / "smoke" / "arm=nolb"
    arm.mkdir(parents=True)
    (arm / "arm.json").write_text('{"state": "done", "seconds": 1.0, "error": null}')
    line = refusal("train", "sweep=smoke")
    assert "arm=nolb was trained by an earlier version" in line
    assert "sweep_name=" in line


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
def test_balance_sweeps_cut_a_default_step_in_four(name):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        default, arm = (compose("train", [f"sweep={sweep}", "run_dir=nowhere"]) for sweep in ("paper", name))
    assert arm["global_batch_size"] == 4 * arm["data"]["batch_size"] == default["data"]["batch_size"]


def test_a_changed_config_is_refused_with_the_difference(sweep_of):
    keep(sweep_of("sweep=smoke").arms[0])
    with pytest.raises(UserError, match=r"arm=baseline,seed=42 was .*: trainer.max_steps was 4, is now 9; undo"):
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


def test_arms_whose_names_differ_in_a_slash_have_two_directories(sweep_of):
    """The second was found finished, with the results of the first."""
    command = "sweep=grid", "sweep_name=mine", "data.tokenizer=my/words,my-words"
    first, second = directories(sweep_of(*command))
    assert first == "outputs/sweeps/mine/data.tokenizer=my-words,seed=42"
    assert second.startswith(f"{first}-")
    sweep_of(*command).register()
    assert directories(sweep_of(*command)) == [first, second]
    assert directories(sweep_of(*command[:2], "data.tokenizer=my-words")) == [second]
