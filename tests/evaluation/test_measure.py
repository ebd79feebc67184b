"""Counts that no machine holds are refused before they are made."""

import pytest
import torch

from moe_toy.errors import UserError
from moe_toy.evaluation.measure import bytes_of_counts, countable
from moe_toy.evaluation.settings import MetricSettings
from moe_toy.routing import RoutingTrace
from moe_toy.traces.recording import Recording
from moe_toy.traces.trace_file import save_trace

SETTINGS = MetricSettings(intervals=False)


def recording(path, num_experts):
    ids = torch.arange(2).expand(2, 1, 8, 2)
    trace = RoutingTrace(
        expert_ids=ids, token_ids=torch.zeros(1, 8, dtype=torch.int64), num_experts=num_experts, layer_ids=(0, 1)
    )
    save_trace(trace, path)
    return Recording([path])


def test_a_small_file_that_asks_for_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("moe_toy.evaluation.measure.physical_memory", lambda: 10**8)
    assert len(list(countable(recording(tmp_path / "few.safetensors", 64), SETTINGS))) == 1
    many = recording(tmp_path / "many.safetensors", 65536)
    assert many.files[0].stat().st_size < 2000
    with pytest.raises(UserError, match=r"many.safetensors: counts of 1 domains, 2 layers and 65536 experts take"):
        next(countable(many, SETTINGS))


def test_the_largest_counts_are_resampled(tmp_path):
    (trace,) = recording(tmp_path / "a.safetensors", 100)
    resampled = 1000 * (2 * 5 + 2 * 4 * 2 * 100)  # of bins, and of hits by scope, policy, layer and expert
    both = [bytes_of_counts(trace, 1, MetricSettings(segment_lengths=(4,), intervals=on)) for on in (False, True)]
    assert both[1] - both[0] == 8 * resampled
