"""Speed, share of the peak and memory, on a clock and a device that tests set."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from moe_toy.callbacks import throughput
from moe_toy.callbacks.throughput import ThroughputCallback, peak_flops
from moe_toy.routing import TokenBatch

TOKENS = TokenBatch(torch.zeros(2, 50, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))


class Told(Trainer):
    """What the callback asks of a trainer."""

    global_step, world_size, precision = 0, 1, "bf16-mixed"
    datamodule = SimpleNamespace(position=SimpleNamespace(tokens=7))

    def __init__(self) -> None:
        self._logger_connector = SimpleNamespace(should_update_logs=False)


class Placed(LightningModule):
    device = None

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        type(self).device = device
        self.model = SimpleNamespace(config=SimpleNamespace(flops_per_token=lambda seq: 10**9 * seq))


@pytest.fixture
def logged(monkeypatch):
    """`logged(device, seconds of each step)`: what is logged after each, every third step being a log step on CUDA."""
    clock = [0.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**30)

    def run(device: str, seconds: list[float], waiting: float = 0.0) -> list[dict[str, float]]:
        def wait(device):
            clock[0] += waiting

        monkeypatch.setattr(torch.cuda, "synchronize", wait)
        trainer, module = Told(), Placed(torch.device(device))
        connector = trainer._logger_connector
        callback, rows = ThroughputCallback(window=2), []
        callback.log = lambda key, value, prog_bar: rows[-1].update({key: value.item()})
        callback.on_train_start(trainer, module)
        for step, time in enumerate(seconds):
            rows.append({})
            connector.should_update_logs = step % 3 == 2
            callback.on_train_batch_start(trainer, module, TOKENS, step)
            clock[0] += time
            trainer.global_step += 1
            callback.on_train_batch_end(trainer, module, None, TOKENS, step)
            clock[0] += 100.0  # what lies between batches, a validation for one
        return rows

    return run


def test_the_mean_begins_after_the_first_steps(logged):
    speeds = [row["train/tokens_per_s"] for row in logged("cpu", [20.0, 10.0, 5.0, 1.0, 1.0, 2.0])]
    assert speeds == pytest.approx([5, 10, 20, 100, 100, 100 / 1.5])


def test_memory_and_share_of_the_peak_are_of_cuda_only(logged):
    assert logged("cpu", [1.0])[0].keys() == {"train/tokens_per_s", "train/tokens"}
    row = logged("cuda", [1.0])[0]
    assert row["train/memory_gib"] == 3
    assert row["train/mfu"] == pytest.approx(100 * 50 * 1e9 / 989e12)


def test_between_log_steps_nothing_waits_for_cuda_and_all_time_counts(logged):
    rows = logged("cuda", [20.0, 10.0, 5.0, 1.0, 0.1, 0.1, 0.1, 0.1, 0.1], waiting=0.7)
    assert [bool(row) for row in rows] == [True] * 4 + [False, True, False, False, True]
    # The device was told of three steps in 0.3 s and took a second for them.
    last = 1 / (rows[5]["train/tokens_per_s"])
    assert 1 / rows[8]["train/tokens_per_s"] == pytest.approx(last / 8 + 1.0 / 300 * 7 / 8)


@pytest.mark.parametrize(
    ("name", "precision", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16-mixed", 989),
        ("NVIDIA H100 PCIe", "bf16-true", 756),
        ("NVIDIA A100-SXM4-40GB", "bf16-mixed", 312),
        ("NVIDIA H200", "bf16-mixed", 989),
        ("NVIDIA H200 NVL", "bf16-mixed", 835),
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", "bf16-mixed", None),
        ("NVIDIA A10G", "bf16-mixed", None),
        ("NVIDIA GeForce GTX 1080", "bf16-mixed", None),
        ("NVIDIA H100 80GB HBM3", "32-true", None),
    ],
)
def test_a_peak_is_known_by_the_name_of_a_device_or_not_at_all(name, precision, tflops):
    peak = peak_flops(name, precision)
    assert peak == (None if tflops is None else tflops * 1e12)
