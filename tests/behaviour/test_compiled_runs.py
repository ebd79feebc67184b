"""Runs on two ranks whose blocks are compiled: their curves, their checkpoints, and how they go on."""

import pytest

from moe_toy.runs.checkpoint import Checkpoint
from tests.behaviour.test_ranks import ON_CPUS, launch
from tests.small_run import EIGHT_EXPERTS, SMALL


@pytest.fixture(scope="module")
def runs(texts, tmp_path_factory):
    """`runs["fsdp compiled"]`: directories of runs that are the same but for being compiled; `ddp` went on once."""
    folder = tmp_path_factory.mktemp("compiled")
    places = [f"data.source.path={texts}", f"data.root={folder / 'cache'}"]
    rest = ["callbacks=none", "logger=none", "trainer.precision=bf16-mixed", "model.num_layers=3"]
    jobs = []
    for strategy in ("ddp", "fsdp"):
        for name, compiled in (("plain", "false"), ("compiled", "true")):
            common = [*SMALL, *EIGHT_EXPERTS, *places, f"trainer={strategy}", *ON_CPUS, *rest, "trainer.devices=2"]
            overrides = [*common, f"model.compile={compiled}", "trainer.val_check_interval=2"]
            run_dir = folder / f"{strategy} {name}"
            jobs.append((run_dir, [*overrides, "trainer.max_steps=2"]))
            jobs.append((run_dir, [*overrides, "trainer.max_steps=4", "ckpt_path=auto"]))
    launch(2, jobs, folder)
    return {run_dir.name: run_dir for run_dir, _ in jobs}


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_compiled_run_ends_and_goes_on_with_the_weights_of_a_plain_one(runs, strategy):
    plain, compiled = (Checkpoint.open(runs[f"{strategy} {name}"]) for name in ("plain", "compiled"))
    assert compiled.content["global_step"] == 4
    assert plain.weights.keys() == compiled.weights.keys()
    distances = {name: (w - compiled.weights[name]).norm() / w.norm() for name, w in plain.weights.items()}
    assert 0 < max(distances.values()) < 0.02  # bf16 rounds otherwise where operations are put together
