from copy import copy
from dataclasses import replace

import pytest
import torch

from moe_toy.callbacks.saturation import SaturationCallback


@pytest.fixture
def validate(subject, trainer, recorder):
    """`validate(callback, trace, ...)`: one validation; returns what it logged, or None."""

    def run(callback: SaturationCallback, *traces) -> dict[str, float] | None:
        if callback.subject is None:
            callback.subject, callback.metrics = subject, callback.build(subject)
        recorder.logged.clear()
        callback.on_validation_epoch_start(trainer, recorder)
        for trace in traces:
            callback.update({"trace": trace}, trace)
        callback.on_validation_epoch_end(trainer, recorder)
        return recorder.logged[0] if recorder.logged else None

    return run


def moved(trace):
    """One of two experts of every token changes."""
    return replace(trace, expert_ids=torch.stack([trace.expert_ids[..., 0], 5 - trace.expert_ids[..., 0]], -1))


def test_each_validation_is_compared_with_the_one_before(validate, trace):
    callback = SaturationCallback(probe_batches=2, per_layer=False)
    trace = moved(trace)
    other = replace(trace, expert_ids=(trace.expert_ids + 1) % 6)
    assert validate(callback, trace) is None
    assert validate(callback, trace) == {"router/saturation": 1.0, "step": 0.0}
    changed = validate(callback, other)["router/saturation"]
    assert changed < 1
    assert validate(callback, other) == {"router/saturation": 1.0, "step": 0.0}


def test_only_the_probe_counts(validate, trace):
    callback = SaturationCallback(probe_batches=1, per_layer=True)
    validate(callback, trace, trace)
    logged = validate(callback, trace, moved(trace))
    assert logged["router/saturation/layer_03"] == 1


def test_a_resumed_run_goes_on_with_its_curve(validate, trace):
    first = SaturationCallback(probe_batches=2, per_layer=False)
    validate(first, trace)
    resumed = SaturationCallback(probe_batches=2, per_layer=False)
    resumed.load_state_dict(first.state_dict())
    assert validate(resumed, trace)["router/saturation"] == 1


def test_the_validations_of_another_trainer_are_not_compared(validate, trace, trainer, recorder):
    callback, other = SaturationCallback(probe_batches=2, per_layer=False), copy(trainer)
    for used, compared in ((trainer, False), (trainer, True), (other, False)):
        callback.setup(used, recorder, "validate")
        assert (validate(callback, trace) is not None) == compared


def test_other_text_is_not_compared(validate, trace):
    callback = SaturationCallback(probe_batches=2, per_layer=False)
    other = replace(trace, token_ids=(trace.token_ids + 1) % 20)
    validate(callback, trace, trace)
    assert validate(callback, trace, other)["router/saturation"] == 1
