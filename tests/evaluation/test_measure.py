"""One pass over the recorded files; counts that no machine holds are refused before they are made."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from moe_toy.errors import UserError
from moe_toy.evaluation.measure import makers_of, measure
from moe_toy.evaluation.settings import MetricSettings
from moe_toy.routing import RoutingTrace
from moe_toy.traces import recording as recording_module
from moe_toy.traces.recording import Recording
from moe_toy.traces.trace_file import load_trace, save_trace
from tests.metrics.conftest import load_golden, random_trace

SETTINGS = MetricSettings(intervals=False)


def recording(path, num_experts):
    ids = torch.arange(2).expand(2, 1, 8, 2)
    trace = RoutingTrace(
        expert_ids=ids, token_ids=torch.zeros(1, 8, dtype=torch.int64), num_experts=num_experts, layer_ids=(0, 1)
    )
    save_trace(trace, path)
    return Recording([path])


def test_each_file_is_read_once_for_all_tables(tmp_path, monkeypatch):
    reads = Counter()
    monkeypatch.setattr(recording_module, "load_trace", lambda file: reads.update([file.name]) or load_trace(file))
    trace = replace(load_golden("sticky_e16k4").trace, domain_ids=None, domains=())
    files = [tmp_path / f"{name}.safetensors" for name in ("books", "code", "web")]
    for number, file in enumerate(files):
        save_trace(trace.select(slice(number, number + 2)), file)
    kept = []
    results = measure(Recording(files), MetricSettings(cache_stride=1), None, {"name": "x"}, kept.append)
    assert reads == {"books.safetensors": 1, "code.safetensors": 1, "web.safetensors": 1}
    assert {"srp", "cache", "load", "balance", "nulls", "correlations"} <= set(results.tables)
    assert results.summary["domains"] == ["books", "code", "web"]
    assert results.summary["samples_per_domain"] == 2
    assert len(kept) == 3


@pytest.mark.parametrize("cold", ["hit", "miss", "exclude"])
def test_null_models_are_scored_as_the_model_is(tmp_path, cold):
    """First requests were hits beside caches in which they were misses, and a length given twice was drawn twice."""
    save_trace(load_golden("sticky_e16k4").trace, tmp_path / "a.safetensors")
    settings = MetricSettings(segment_lengths=(16, 4, 16), cache_stride=1, intervals=False, cold=cold, null_samples=99)
    tables = measure(Recording([tmp_path / "a.safetensors"]), settings, None, {}).tables
    cache = tables["cache"].query("policy == 'sch' and scope == 'model' and order == 'token' and segment_length == 16")
    cache = cache[cache.domain.isna()].set_index("cache_ratio").hit_rate
    nulls = tables["nulls"].set_index(["metric", "cache_ratio"]).raw["sch"]
    assert nulls.to_dict() == pytest.approx(cache[nulls.index].to_dict())
    assert tables["nulls"].segment_length[tables["nulls"].metric == "srp"].tolist() == [16, 4]


def test_a_small_file_that_asks_for_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("moe_toy.evaluation.measure.physical_memory", lambda: 10**8)
    few = measure(recording(tmp_path / "few.safetensors", 64), SETTINGS, None, {})
    assert few.summary["num_experts"] == 64
    many = recording(tmp_path / "many.safetensors", 65536)
    assert many.files[0].stat().st_size < 2000
    with pytest.raises(UserError, match=r"many.safetensors: counts of 1 domains, 2 layers and 65536 experts take"):
        measure(many, SETTINGS, None, {})


def test_the_largest_counts_are_resampled(tmp_path):
    (trace,) = recording(tmp_path / "a.safetensors", 100)
    resampled = 1000 * (2 * 5 + 3 * 4 * 2 * 100)  # of bins, and of hits by cache, policy, layer and expert
    without, with_intervals = (
        sum(maker.memory(1) for maker in makers_of(trace, MetricSettings(segment_lengths=(4,), intervals=on), None))
        for on in (False, True)
    )
    assert with_intervals - without == 8 * resampled


@pytest.mark.parametrize("intervals", [False, True])
def test_makers_hold_what_they_say(intervals):
    """Within a tenth: small counts, such as those of sequences, are left out."""
    trace = random_trace(domains=2, seq=64, num_experts=32)
    trace = trace.with_domains(trace.domain_ids, ("a", "b"))
    for maker in makers_of(trace, MetricSettings(segment_lengths=(4, 16), intervals=intervals), None)[:2]:
        assert not {"srp", "caches"} & set(vars(maker))  # nothing before the first update
        maker.update(trace)
        metrics = [metric for held in vars(maker).values() if isinstance(held, dict) for metric in held.values()]
        states = [state for metric in metrics if hasattr(metric, "_defaults") for state in metric.metric_state.values()]
        held = sum(state.numel() * state.element_size() for state in states)
        assert held == pytest.approx(maker.memory(2), rel=0.1)
