"""What this machine lacks is told in one line, before anything is created."""

import pytest
import torch

from moe_toy.errors import UserError
from moe_toy.training.devices import check_devices, num_devices

CPU = {"accelerator": "cpu", "precision": "32-true", "devices": 1}


@pytest.fixture
def two_gpus(monkeypatch):
    """Old ones, without bf16."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla V100")


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize("name", ["gpu", "ddp", "fsdp"])
def test_a_gpu_where_there_is_none_is_one_line(refusal, no_gpu, name):
    line = refusal("train", f"trainer={name}", "logger=csv")
    assert f"no GPU is visible to torch {torch.__version__}; use trainer=cpu, or" in line


def test_a_build_that_knows_gpus_is_not_to_be_replaced(no_gpu, monkeypatch):
    for version, way in ((None, "install a CUDA build"), ("13.0", "look at nvidia-smi and CUDA_VISIBLE_DEVICES")):
        monkeypatch.setattr(torch.version, "cuda", version)
        with pytest.raises(UserError, match=f"use trainer=cpu, or {way}"):
            check_devices(CPU | {"accelerator": "gpu"})


@pytest.mark.parametrize("devices", [3, "3", [2], "0,2", [0, 1, 2]])
def test_more_gpus_than_there_are_is_refused(two_gpus, devices):
    with pytest.raises(UserError, match=r"torch sees 2 GPUs; give fewer, or trainer.devices=auto"):
        check_devices(CPU | {"accelerator": "gpu", "devices": devices})


@pytest.mark.parametrize("devices", [1, 2, "2", -1, "auto", "-1", [1], "0,1", "1,"])
def test_as_many_gpus_as_there_are_is_fine(two_gpus, devices):
    check_devices(CPU | {"accelerator": "gpu", "devices": devices})


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_bf16_on_a_gpu_without_it_is_refused(two_gpus, precision):
    with pytest.raises(UserError, match=f"trainer.precision={precision}: Tesla V100 has no bf16; use 16-mixed"):
        check_devices(CPU | {"accelerator": "gpu", "precision": precision})


@pytest.mark.parametrize("precision", ["16-mixed", 16, "16"])
def test_mixed_fp16_needs_a_gpu(two_gpus, precision):
    check_devices(CPU | {"accelerator": "gpu", "precision": precision})
    with pytest.raises(UserError, match=f"trainer.precision={precision} needs a GPU; on a CPU use bf16-mixed"):
        check_devices(CPU | {"precision": precision})


def test_weights_in_fp16_are_refused_everywhere(two_gpus):
    for accelerator in ("cpu", "gpu"):
        with pytest.raises(UserError, match="AdamW's eps are 0 in fp16; use bf16-true, or 16-mixed on a GPU"):
            check_devices(CPU | {"accelerator": accelerator, "precision": "16-true"})


def test_any_number_of_processes_shares_a_cpu():
    check_devices(CPU | {"devices": 7})
    assert [num_devices(devices, 4) for devices in (3, "3", "auto", -1, [1, 2], "0,1,3")] == [3, 3, 4, 4, 2, 3]


@pytest.mark.parametrize("limit", [1, 2, 0.5])
def test_a_validation_of_the_first_domains_only_is_refused(refusal, limit):
    line = refusal("train", f"trainer.limit_val_batches={limit}", "logger=csv")
    samples = {0.5: 4}.get(limit, 1)
    assert f"would validate the first domains only; use data.validation_samples={samples}" in line


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"accelerator": "tpu"}, "trainer.accelerator=tpu is none that runs were tried on"),
        ({"precision": "transformer-engine"}, "trainer.precision=transformer-engine casts layers that we have not"),
        ({"devices": [0]}, r"trainer.devices=\[0\]: a CPU has no numbers"),
    ],
)
def test_what_lightning_would_answer_with_a_traceback_is_one_line(change, told):
    with pytest.raises(UserError, match=told):
        check_devices(CPU | change)


def test_a_seed_that_numpy_does_not_take_is_refused(refusal):
    assert "seed" in refusal("train", "seed=4294967296", "logger=csv")
    assert "num_sanity_val_steps=2" in refusal("train", "trainer.num_sanity_val_steps=2", "logger=csv")


@pytest.mark.parametrize(
    ("capabilities", "warned"),
    [
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": False}, True),
        ({"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}, False),
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": True}, False),
        ({"architecture": "aarch64"}, False),
    ],
    ids=["neither", "avx512", "amx", "arm"],
)
def test_bf16_on_a_cpu_without_it_is_warned_of(capabilities, warned, monkeypatch, caplog):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    check_devices(CPU)
    assert not caplog.text
    check_devices(CPU | {"precision": "bf16-mixed"})
    assert ("several times as long as with trainer.precision=32-true" in caplog.text) == warned


@pytest.mark.parametrize("change", ["trainer.default_root_dir=scratch", "trainer.default_root_dir=null"])
def test_checkpoints_elsewhere_than_in_the_run_directory_are_refused(refusal, change):
    assert "trainer.default_root_dir=" in (line := refusal("train", change, "logger=csv"))
    assert "where ckpt_path=auto looks for them; leave it at " in line


@pytest.mark.parametrize("change", ["trainer.use_distributed_sampler=true", "~trainer.use_distributed_sampler"])
def test_samples_that_lightning_would_deal_are_refused(refusal, change):
    assert "trainer.use_distributed_sampler must be false" in refusal("train", change, "logger=csv")
