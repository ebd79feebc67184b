"""What all routing callbacks log together: names, number, distributions."""

import math
import re
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from moe_toy.callbacks import base
from moe_toy.callbacks.base import MOST_KEYS, MOST_LAYERS, RoutingCallback, by_layer
from moe_toy.callbacks.caches import CacheCallback
from moe_toy.callbacks.consistency import SegmentConsistencyCallback
from moe_toy.errors import UserError
from tests.metrics.conftest import random_trace
from tests.paths import CONF, ROOT

SECTIONS = {"val", "consistency", "cache", "load", "specialization", "correlation", "router"}


def default_callbacks() -> list[RoutingCallback]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["run_dir=nowhere", "name=test"])
    found = [instantiate(entry) for entry in cfg.callbacks.values()]
    return [callback for callback in found if isinstance(callback, RoutingCallback)]


def log_all(subject, num_layers: int, domains: tuple[str, ...]) -> dict[str, float]:
    """The scalars of a second validation, at which every default callback has something to say."""
    subject = replace(subject, layer_ids=tuple(range(num_layers)), domains=domains, num_experts=32)
    trace = random_trace(layers=num_layers, batch=len(domains), seq=300, k=2, num_experts=32)
    trace = replace(trace, domain_ids=torch.arange(len(domains)), domains=domains)
    logged = {}
    for callback in default_callbacks():
        callback.subject, callback.metrics = subject, callback.build(subject)
        for _ in range(2):
            callback.update({"trace": trace, "token_losses": torch.rand(len(domains), 299)}, trace)
            callback.previous = getattr(callback, "probe", None)
        curves = callback.curves({name: metric.compute() for name, metric in callback.metrics.items()})
        assert not logged.keys() & curves.keys()
        logged |= curves
    return logged


@pytest.fixture(scope="module")
def eleven() -> tuple[str, ...]:
    return tuple(f"domain{number}" for number in range(11))


@pytest.mark.parametrize("num_layers", [4, 14, 40])
def test_a_validation_logs_at_most_so_many_curves(subject, num_layers, eleven):
    logged = log_all(subject, num_layers, eleven)
    assert 80 < len(logged) <= MOST_KEYS
    assert {key.partition("/")[0] for key in logged} == SECTIONS


def test_every_curve_is_in_the_table_of_the_docs(subject, eleven):
    text = (ROOT / "docs" / "curves.md").read_text()
    for key in log_all(subject, 4, eleven):
        general = re.sub(r"layer_\d+", "layer_03", re.sub(r"domain\d+", "books", key))
        assert f"`{general}`" in text, general


def test_domains_may_be_called_what_they_like(subject):
    logged = log_all(subject, 3, ("layer_00", "domain", "layer_01"))
    assert logged["consistency/srp@16/layer_00"] != logged["consistency/srp@16/domain/layer_00"]
    assert {"specialization/experts_of/layer_00", "val/loss/domain/domain"} <= logged.keys()


def test_a_callback_used_again_names_the_domains_of_its_new_data(trainer, recorder, monkeypatch, subject, trace):
    """As in a notebook, with one list of callbacks for the trainers of several models."""
    callback = SegmentConsistencyCallback(segment_lengths=[4], detailed=[4])
    for domains in (("a", "b", "c"), ("x", "y", "z")):
        monkeypatch.setattr(base, "subject_of", lambda *of, names=domains: replace(subject, domains=names))
        callback.setup(trainer, recorder, "fit")
        callback.on_validation_epoch_start(trainer, recorder)
        callback.on_validation_batch_end(trainer, recorder, {"trace": trace}, None, 0)
        callback.on_validation_epoch_end(trainer, recorder)
        assert {f"consistency/srp@4/domain/{name}" for name in domains} <= recorder.logged[-1].keys()


@pytest.fixture
def hooked(trainer, recorder, monkeypatch, subject):
    """What the hooks of a callback are given."""
    monkeypatch.setattr(base, "subject_of", lambda *of: subject)
    return trainer, recorder


@pytest.mark.parametrize(("stride", "refused"), [(1, False), (2, True)], ids=["the same", "another stride"])
def test_one_key_for_two_numbers_is_refused(hooked, trace, stride, refused):
    of_all, of_some = (
        CacheCallback(segment_length=4, cache_ratios={"lru": [1, ratio]}, sample_stride=every)
        for ratio, every in ((2, 1), (3, stride))
    )
    hooked[0].callbacks += [of_all, of_some]
    for _ in range(2):
        for callback in (of_all, of_some):
            callback.on_validation_epoch_start(*hooked)
            callback.on_validation_batch_end(*hooked, {"trace": trace}, None, 0)
        of_all.on_validation_epoch_end(*hooked)
        with pytest.raises(UserError, match="log cache/lru/ratio_1 as") if refused else nullcontext():
            of_some.on_validation_epoch_end(*hooked)
        trace = replace(trace, expert_ids=trace.expert_ids.roll(1, 2))  # what is logged later may differ


def test_of_very_many_layers_as_many_from_the_first_to_the_last_are_logged(subject):
    deep = replace(subject, layer_ids=tuple(range(1, 61)))
    kept = by_layer("x", torch.arange(60.0), deep)
    assert len(kept) == MOST_LAYERS
    assert (kept["x/layer_01"], kept["x/layer_60"]) == (0, 59)


def test_distributions_over_experts_are_given(subject):
    named = {key for callback in default_callbacks() for key in histograms_of(callback, subject)}
    assert named == {"consistency/experts/srp@16", "specialization/experts/domain"}


def histograms_of(callback: RoutingCallback, subject) -> dict[str, torch.Tensor]:
    trace = random_trace(layers=3, batch=12, seq=64, k=2, num_experts=6)
    callback.subject, callback.metrics = subject, callback.build(subject)
    callback.update({"trace": trace, "token_losses": torch.rand(12, 63)}, trace)
    found = callback.histograms({name: metric.compute() for name, metric in callback.metrics.items()})
    assert all(values.shape == (3, 6) for values in found.values())
    return found


def test_a_callback_that_reads_predictions_asks_for_them(subject):
    """Without them validations carry none, and what is made of them would be NaN in silence."""
    trace = random_trace(layers=3, batch=12, seq=200, k=2, num_experts=6)
    trace = replace(trace, domain_ids=torch.arange(12) % 3, predicted_ids=trace.token_ids.roll(1, 1))
    asking = set()
    for callback in default_callbacks():
        values = []
        for given in (trace, replace(trace, predicted_ids=None)):
            callback.subject, callback.metrics = subject, callback.build(subject)
            callback.update({"trace": given, "token_losses": torch.rand(12, 199)}, given)
            curves = callback.curves({name: metric.compute() for name, metric in callback.metrics.items()})
            values.append({key for key, value in curves.items() if not math.isnan(value)})
        if values[0] != values[1]:
            assert callback.needs_predictions
            asking.add(type(callback).__name__)
    assert asking == {"VocabularySpecializationCallback"}
