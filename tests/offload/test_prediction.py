"""The three numbers of a prediction are found where they are known, and foretell what was not calibrated on."""

import numpy as np
import pytest
import torch

from moe_toy.offload import decode, engine, readers
from moe_toy.offload.measure import Measurement
from moe_toy.offload.prediction import ForcedMisses, Prediction
from moe_toy.offload.settings import OffloadSettings
from moe_toy.offload.tables import decoding_table, fit_prediction, prediction_errors

SETTINGS = {
    "store": "page_cache",
    "dtype": "float32",
    "threads": 1,
    "delay_ms": 0.0,
    "scope": "model",
    "prefetch": "none",
    "policies": ["lru", "lfu"],
    "cache_ratios": [1, 2],
    "cache_bytes": [],
    "prompt_length": 8,
    "decode_length": 8,
    "samples_per_domain": 1,
}


def test_a_fit_finds_what_made_the_numbers():
    rounds, num_bytes = np.array([0.0, 1, 4, 4, 8]), np.array([0.0, 1e6, 1e6, 8e6, 8e6])
    found = Prediction.fit(0.003 + rounds * 1e-4 + num_bytes * 2e-9, rounds, num_bytes)
    assert (found.compute, found.latency, found.seconds_per_byte) == pytest.approx((0.003, 1e-4, 2e-9))
    assert found(np.array([2.0]), np.array([3e6])) == pytest.approx([0.003 + 2e-4 + 6e-3])


def test_nothing_takes_less_than_no_time():
    rounds, num_bytes = np.array([0.0, 1, 2, 2]), np.array([0.0, 1e6, 1e6, 2e6])
    found = Prediction.fit(0.003 + rounds * 1e-3 - num_bytes * 1e-11, rounds, num_bytes)
    assert found.seconds_per_byte == 0
    assert found.latency == pytest.approx(1e-3, rel=0.05)


def test_forced_misses_read_what_is_there_again():
    steps = ForcedMisses(1).look_up([5, 3])
    assert [tuple(step) for step in steps] == [(5, 5, True), (3, 3, False)]
    in_turn = ForcedMisses(2, num_slots=3)
    assert [[tuple(step) for step in in_turn.look_up([5, 7])] for _ in range(2)] == [
        [(5, 0, True), (7, 1, True)],
        [(5, 2, True), (7, 0, True)],
    ]


class Clock:
    """Stands still but for sleeping, and for a tenth of a millisecond whenever somebody looks at it."""

    def __init__(self) -> None:
        self.now = 0.0

    def look(self) -> float:
        self.now += 1e-4
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_five_milliseconds_a_miss_are_predicted(make_model, tmp_path, monkeypatch):
    """By a clock that no other process disturbs."""
    clock = Clock()
    for module in (decode, engine):
        monkeypatch.setattr(module, "perf_counter", clock.look)
    monkeypatch.setattr(readers.time, "sleep", clock.sleep)
    torch.manual_seed(2)
    texts = {"text": [torch.randint(50, (28,))]}
    settings = OffloadSettings(**SETTINGS | {"delay_ms": 5.0, "decode_length": 20})
    steps = Measurement(make_model(num_layers=3, hidden_size=32), texts, settings, tmp_path).run()
    prediction = fit_prediction(steps)
    assert prediction.latency + 4096 * prediction.seconds_per_byte == pytest.approx(5e-3, rel=0.1)
    table = decoding_table(steps, prediction, active=6)
    assert table[table.domain.isna() & (table.capacity == 6)].reads_per_token.gt(0.2).all()
    assert prediction_errors(table)["worst"] < 0.05
