from dataclasses import replace

import pytest
import torch

from moe_toy.errors import UserError
from moe_toy.metrics import Saturation


def score(trace, reference):
    metric = Saturation(num_layers=trace.expert_ids.shape[0], num_experts=trace.num_experts)
    metric.update(trace, reference)
    return metric.compute()


def test_hand_computed(trace_of):
    got = score(trace_of([(0, 1), (2, 3), (1, 2)], 4), trace_of([(1, 0), (0, 1), (2, 3)], 4))
    assert got.layer.tolist() == [0.5]
    assert got.model == 0.5


def test_order_of_experts_does_not_matter(make_trace):
    trace = make_trace()
    assert score(trace, replace(trace, expert_ids=trace.expert_ids.flip(-1))).model == 1


def test_undefined_without_tokens(make_trace):
    trace = make_trace(batch=0)
    assert score(trace, trace).model.isnan()


def test_a_token_without_expert_chooses_nothing(trace_of):
    trace, reference = trace_of([(0, 1), (2, -1), (-1, -1)], 4), trace_of([(1, -1), (0, -1), (2, 3)], 4)
    assert score(trace, reference).model.item() == pytest.approx(1 / 3)


def test_other_layers_and_unknown_tokens_are_refused(make_trace):
    trace = make_trace()
    for reference in (replace(trace, layer_ids=(2, 3)), replace(trace, token_ids=None)):
        with pytest.raises(UserError, match="run both checkpoints on the same batch"):
            score(trace, reference)
    with pytest.raises(UserError, match="the trace has 2 MoE layers of 7 experts"):
        score(trace, replace(trace, num_experts=7))


def test_other_tokens_are_refused(make_trace):
    trace = make_trace()
    with pytest.raises(ValueError, match="run both checkpoints on the same batch"):
        score(trace, replace(trace, token_ids=trace.token_ids + torch.tensor(1)))
