"""The compiled counts equal the plain tensor operations."""

import pytest
import torch

from moe_toy.metrics.activation import (
    _dense_histogram,
    activation_mask,
    segment_activations,
    segment_counts,
    segment_histogram,
)

DTYPES = [torch.uint8, torch.int16, torch.uint16, torch.int32, torch.int64]


@pytest.mark.parametrize("segment_length", [1, 3, 40, 41])
def test_compiled_histogram_equals_tensor_operations(make_trace, segment_length):
    trace = make_trace()
    groups = torch.tensor([0, 2, 1, 1, 0, 2])
    fast = segment_histogram(trace.expert_ids, trace.num_experts, segment_length, groups, 4)
    for layer, ids in enumerate(trace.expert_ids):
        assert torch.equal(fast[:, layer], _dense_histogram(ids, trace.num_experts, segment_length, groups, 4))


def test_activations_are_the_mean_of_the_histogram(make_trace):
    trace = make_trace()
    histogram = segment_histogram(trace.expert_ids, trace.num_experts, 7, torch.arange(6), 6)
    expected = (histogram * torch.arange(8)).sum(-1)
    assert torch.equal(segment_activations(trace.expert_ids, trace.num_experts, 7), expected)


def test_sequence_shorter_than_a_segment_has_no_activations(make_trace):
    assert segment_activations(make_trace(seq=5).expert_ids, 6, 7).sum() == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_integer_type(make_trace, dtype):
    trace = make_trace()
    ids = trace.expert_ids.to(dtype)
    assert torch.equal(activation_mask(ids, 6), activation_mask(trace.expert_ids, 6))
    assert torch.equal(segment_counts(ids, 6, 4), segment_counts(trace.expert_ids, 6, 4))
    assert torch.equal(segment_histogram(ids, 6, 4), segment_histogram(trace.expert_ids, 6, 4))
    assert torch.equal(segment_activations(ids, 6, 4), segment_activations(trace.expert_ids, 6, 4))


def test_expert_out_of_range_is_refused(make_trace):
    with pytest.raises(ValueError, match=r"expert_ids range over 0\.\.5, but num_experts is 5"):
        segment_histogram(make_trace().expert_ids, 5, 4)
