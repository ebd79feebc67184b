"""What a run needs is held against what is free, before anything is fetched."""

import logging

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from moe_toy.errors import UserError
from moe_toy.training import memory, preflight
from moe_toy.training.build import build_model
from moe_toy.training.memory import GIB, check_memory, free_memory, keeps_activations, need_of, report_out_of_memory
from tests.paths import CONF


@pytest.fixture
def planned():
    """`planned("model=olmoe_1b4")`: its plain config and its model without weights."""

    def make(*overrides: str):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", [*overrides, "run_dir=nowhere", "name=test"])
        with torch.device("meta"):
            return OmegaConf.to_container(cfg, resolve=True), build_model(cfg)

    return make


@pytest.fixture
def free(monkeypatch):
    """`free(8)`: so many GiB are."""
    return lambda gib: monkeypatch.setattr(memory, "free_memory", lambda on_gpu: int(gib * GIB))


def test_adamw_keeps_four_numbers_a_weight_and_adafactor_in_the_backward_pass_one(planned):
    values, model = planned("model=olmoe_1b4")
    adamw, step = need_of(values, model), need_of(*planned("experiment=cpu_1b4_step"))
    assert adamw.weights == adamw.gradients == adamw.optimizer // 2 == 4 * model.config.total_parameters
    assert step.gradients == 64 * 1280 * 2 * 640 * 4  # of the largest matrix
    assert step.optimizer == 0


@pytest.mark.parametrize(("precision", "width"), [("bf16-true", 2), ("64-true", 8), ("bf16-mixed", 4)])
def test_a_number_takes_what_its_precision_does(planned, precision, width):
    values, model = planned(f"trainer.precision={precision}")
    assert need_of(values, model).weights == width * model.config.total_parameters


def test_shards_divide_the_states_and_processes_on_a_cpu_add_up(planned):
    one = need_of(*planned("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=1"))
    two = need_of(*planned("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"))
    sharded = need_of(*planned("trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2"))
    assert two.total == 2 * one.total
    assert sharded.states == one.states
    assert sharded.activations == two.activations


def test_activations_are_a_floor_of_what_the_backward_pass_keeps(planned):
    values, _ = planned("data.batch_size=2")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        model = build_model(compose("train", ["run_dir=nowhere", "name=test"]))
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.zeros(2, 512, dtype=torch.int64), only_loss=True)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    measured = sum(x.untyped_storage().nbytes() for pointer, x in kept.items() if pointer not in weights)
    assert 0.3 * measured < need_of(values, model).activations <= measured


def test_more_than_is_free_is_refused_with_what_would_fit(planned, free):
    free(20)
    values, model = planned("model=olmoe_1b4")
    with pytest.raises(UserError) as refused:
        check_memory(values, model)
    line = str(refused.value)
    assert "needs at least 20.2 GiB (weights 4.9, gradients 4.9, optimizer 9.8, activations 0.7)" in line
    assert "and 20.0 GiB of memory are free" in line
    assert "trainer=gpu or an optimiser that keeps no gradients (as experiment=cpu_1b4_step)" in line
    assert "check_memory=false" in line


def test_a_batch_that_fits_is_named(planned, free):
    values, model = planned("data.batch_size=64")
    need = need_of(values, model)
    free(need.total / 2 / GIB)
    with pytest.raises(UserError, match=r"data.batch_size=(\d+)") as refused:
        check_memory(values, model)
    fitting = int(str(refused.value).split("data.batch_size=")[1].split()[0])
    smaller, model = planned(f"data.batch_size={fitting}")
    assert 0.7 < need_of(smaller, model).total / (need.total / 2) <= 0.8


def test_most_of_what_is_free_is_warned_of_and_less_is_not(planned, free, caplog):
    values, model = planned()
    need = need_of(values, model).total / GIB
    for share, warned in ((0.7, False), (0.9, True)):
        free(need / share)
        with caplog.at_level(logging.WARNING):
            check_memory(values, model)
        assert ("this run needs at least" in caplog.text) is warned


def test_the_command_line_refuses_before_anything_is_created(refusal, free):
    free(0.01)
    assert "this run needs at least" in refusal("train", "logger=csv")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        preflight.check(compose("train", ["logger=csv", "check_memory=false", "run_dir=nowhere", "name=test"]))


def test_the_limit_of_a_control_group_counts(tmp_path, monkeypatch):
    names = ("memory.max", "memory.current", "memory.stat")
    for name, text in zip(names, ("3000\n", "2000\n", "anon 1\ninactive_file 500\n"), strict=True):
        (tmp_path / name).write_text(text)
    group = (str(tmp_path / "memory.max"), str(tmp_path / "memory.current"), "inactive_file")
    monkeypatch.setattr(memory, "CGROUPS", (group,))
    assert free_memory(on_gpu=False) == 1500
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(on_gpu=False) > 2**20


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ..."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_where_memory_ends_the_way_out_is_one_line(error):
    with (
        pytest.raises(UserError, match=r"memory.* ended; use a smaller data\.batch_size") as told,
        report_out_of_memory(),
    ):
        raise error
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), NotImplementedError("no kernel")], ids=str)
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error), match=str(error)), report_out_of_memory():
        raise error


ON_GPU = ["model=olmoe_1b4", "data.vocab_size=50304", "trainer=gpu", "data.sequence_length=4096"]


@pytest.mark.parametrize(("batch_size", "gib", "said"), [(8, 79, "kept"), (16, 79, "recomputed"), (16, 139, "kept")])
def test_auto_keeps_activations_where_they_fit(planned, free, caplog, batch_size, gib, said):  # noqa: PLR0917
    free(gib)
    values, model = planned(*ON_GPU, f"data.batch_size={batch_size}")
    assert model.recomputes_blocks
    with caplog.at_level(logging.INFO):
        assert keeps_activations(values, model) is (said == "kept")
    (line,) = caplog.messages
    assert f"are {said} (about" in line
    assert f"{gib}.0 GiB free" in line


def test_the_estimate_of_kept_activations_is_that_of_a_measured_run(planned, free, caplog):
    free(139)
    with caplog.at_level(logging.INFO):
        keeps_activations(*planned(*ON_GPU, "data.batch_size=8"))
    said = float(caplog.text.split("about ")[1].split(" GiB")[0])
    assert 46.8 <= said < 1.1 * 46.8  # measured on an H200


@pytest.mark.parametrize("setting", ["true", "false"])
def test_what_is_set_is_not_chosen(planned, free, setting):
    free(1000)
    values, model = planned(*ON_GPU, f"model.activation_checkpointing={setting}")
    assert not keeps_activations(values, model)
    assert model.recomputes_blocks is (setting == "true")


def test_on_a_cpu_auto_recomputes(planned, free):
    free(1000)
    values, model = planned("model=olmoe_1b4")
    assert values["model"]["activation_checkpointing"] == "auto"
    assert model.recomputes_blocks
    assert not keeps_activations(values, model)
