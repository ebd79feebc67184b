"""A measurement decodes everything with every arm, there and back, and goes on where it was interrupted."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from moe_toy.errors import UserError
from moe_toy.offload import measure
from moe_toy.offload.measure import Measurement
from moe_toy.offload.passes import CALIBRATION, RESIDENT
from moe_toy.offload.readers import open_reader
from moe_toy.offload.settings import Arm, OffloadSettings
from moe_toy.offload.tables import tables_of
from tests.offload.test_prediction import SETTINGS

SIZES = {"num_layers": 2, "num_experts": 8, "top_k": 2, "row_bytes": 4096}


@pytest.fixture
def texts():
    torch.manual_seed(2)
    return {name: list(torch.randint(50, (2, 20))) for name in ("a", "b")}


def settings(**changes) -> OffloadSettings:
    return OffloadSettings(**SETTINGS | changes)


def test_every_arm_decodes_every_token_twice(model, texts, tmp_path):
    tables, facts = tables_of(Measurement(model, texts, settings(samples_per_domain=2), tmp_path))
    table, steps = tables["offload"], tables["offload_steps"]
    arms = [(RESIDENT, 16), ("lru", 4), ("lfu", 4), ("lru", 8), ("lfu", 8)]
    pooled = table[table.domain.isna()]
    assert list(zip(pooled.policy, pooled.capacity, strict=True)) == arms
    assert pooled.tokens.tolist() == [2 * 2 * 2 * 8] * 5
    assert table[table.domain.notna()].groupby("domain").size().to_dict() == {"a": 5, "b": 5}
    assert pooled.cache_ratio.tolist() == [4, 1, 1, 2, 2]
    offloaded = pooled[pooled.policy != RESIDENT]
    pd.testing.assert_series_equal(offloaded.hit_rate, offloaded.simulated_hit_rate, check_names=False)
    assert (offloaded.bytes_per_token == offloaded.reads_per_token * facts["row_bytes"]).all()
    total = pooled.compute_ms + pooled.stall_ms + pooled.management_ms
    assert total.tolist() == pytest.approx(pooled.ms_per_token.tolist())
    assert (pooled.tokens_per_second * pooled.ms_per_token).tolist() == pytest.approx([1000] * 5)
    assert pooled[pooled.policy == RESIDENT].reads_per_token.item() == 0
    first = steps[(steps.domain == "b") & (steps.sequence == 1)]
    there, back = (first[first["pass"] == number].drop_duplicates(["policy", "capacity"]) for number in (0, 1))
    assert there.policy.tolist() == [CALIBRATION, *(policy for policy, _ in arms)]
    assert back.policy.tolist() == there.policy.tolist()[::-1]


@pytest.mark.parametrize("changes", [{"dtype": "bfloat16"}, {"scope": "layer"}, {"policies": ["belady", "random"]}])
def test_choices_are_measured_too(model, texts, tmp_path, changes):
    tables, _ = tables_of(Measurement(model, {"a": texts["a"]}, settings(decode_length=4, **changes), tmp_path))
    table = tables["offload"]
    offloaded = table[table.policy != RESIDENT]
    assert (offloaded.reads_per_token > 0).any()
    pd.testing.assert_series_equal(offloaded.hit_rate, offloaded.simulated_hit_rate, check_names=False)


def test_guesses_are_counted_apart(model, texts, tmp_path):
    asked = settings(prefetch="next_layer", policies=["lru", "belady"])
    tables, facts = tables_of(Measurement(model, {"a": texts["a"]}, asked, tmp_path))
    table = tables["offload"]
    offloaded = table[table.policy != RESIDENT]
    assert offloaded.capacity.unique().tolist() == [4, 8]
    pd.testing.assert_series_equal(offloaded.hit_rate, offloaded.simulated_hit_rate, check_names=False)
    assert (offloaded.speculative_hit_rate > 0).any()
    assert (offloaded.speculative_bytes_per_token > 0).all()
    assert (offloaded.bytes_per_token == offloaded.reads_per_token * facts["row_bytes"]).all()
    requested = (1 - offloaded.hit_rate - offloaded.speculative_hit_rate) * 2 * 2
    assert requested.tolist() == pytest.approx(offloaded.reads_per_token.tolist())
    assert table.predicted_ms.isna().all()
    assert facts["prediction_error"] is None


def test_an_interrupted_measurement_goes_on(model, texts, tmp_path, monkeypatch):
    stopping = Measurement(model, texts, settings(), tmp_path)
    run_arm, done = stopping._run_arm, []

    def interrupted(arm, number):
        if len(done) == 10:
            raise KeyboardInterrupt
        done.append(arm)
        return run_arm(arm, number)

    stopping._run_arm = interrupted
    with pytest.raises(KeyboardInterrupt):
        stopping.run()
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(kept) == {"experts.bin", "0000-0.parquet", "0000-1.parquet"}
    monkeypatch.setattr(measure, "write_store", None)  # the store is there
    again = Measurement(model, texts, settings(), tmp_path)
    run_arm, rest = again._run_arm, []
    again._run_arm = lambda arm, number: (rest.append(arm), run_arm(arm, number))[1]
    steps = again.run()
    assert len(rest) == 2 * 4
    assert all((tmp_path / name).read_bytes() == content for name, content in kept.items())
    assert steps[steps.policy != CALIBRATION].groupby("pass").size().tolist() == [5 * 2 * 9] * 2


def test_other_logits_stop_the_measurement(model, texts, tmp_path, monkeypatch):
    measurement = Measurement(model, texts, settings(), tmp_path)
    measurement.folder.mkdir(exist_ok=True)
    measurement.store = measurement._store()
    measurement.expected = [measurement._decode_resident(text) for text in measurement.sequences]
    expected = measurement.expected[1]
    measurement.expected[1] = replace(expected, logits=expected.logits + 1e-6)
    measurement.reader = open_reader(measurement.store, "page_cache")
    with pytest.raises(RuntimeError, match="other logits"):
        measurement._run_arm(measurement.arms[0], 1)


def test_the_store_of_another_model_is_not_decoded_from(make_model, model, texts, tmp_path):
    Measurement(model, texts, settings(cache_ratios=[1], policies=["lru"]), tmp_path).run()
    other = make_model(init_std=0.4)
    with pytest.raises(UserError, match="another model"):
        Measurement(other, texts, settings(), tmp_path).run()


@pytest.mark.parametrize(
    ("changes", "capacities"),
    [
        ({}, [4, 8]),
        ({"cache_ratios": [1.5, 4, 8, 99]}, [6, 16]),
        ({"cache_ratios": [0.5]}, [2]),
        ({"cache_ratios": [1.3, 2.6], "scope": "layer"}, [4, 10]),
        ({"cache_ratios": [], "cache_bytes": ["21KiB", 4096 * 9, "1GB"]}, [5, 9, 16]),
        ({"cache_ratios": [1], "cache_bytes": ["16KiB"]}, [4]),
        ({"cache_ratios": [1, 99], "prefetch": "next_layer"}, [4, 16 + 2]),
        ({"cache_ratios": [1.8], "scope": "layer", "prefetch": "next_layer"}, [2 * 2 + 2]),
    ],
)
def test_capacities_follow_from_ratios(changes, capacities):
    arms = settings(policies=["lru"], **changes).arms(**SIZES)
    assert arms == [Arm("lru", capacity, capacity / 4) for capacity in capacities]


@pytest.mark.parametrize(
    ("ratio", "scope", "prefetch", "least"),
    [(0.3, "model", "none", "0.5"), (0.8, "layer", "none", "1"), (0.8, "model", "next_layer", "1")],
)
def test_a_cache_that_cannot_hold_a_layer_is_refused(ratio, scope, prefetch, least):
    with pytest.raises(UserError, match=f"at least {least}$"):
        settings(cache_ratios=[ratio], scope=scope, prefetch=prefetch).arms(**SIZES)


def test_bytes_that_cannot_hold_a_layer_are_refused():
    with pytest.raises(UserError, match=r"cache_bytes: 8191 holds 1 experts, but a layer needs 2 .* at least 8192$"):
        settings(cache_bytes=[8191]).arms(**SIZES)
