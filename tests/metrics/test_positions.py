"""Position-wise SRP against golden data."""

import numpy as np
import pytest

from moe_toy.metrics import PositionSRP, segment_scores
from moe_toy.metrics.activation import segment_histogram


def scores(golden, segment_length):
    metric = PositionSRP(**golden.sizes, seq_len=golden.trace.expert_ids.shape[2], segment_length=segment_length)
    metric.update(golden.trace)
    return metric.compute()


def test_equals_the_published_code(golden):
    for segment_length in golden.srp_lengths:
        name = f"exp_pos_mg_m{segment_length}"
        if f"{name}_best_f1" not in golden.arrays:
            continue
        got = scores(golden, segment_length).model
        np.testing.assert_allclose(got.srp, golden[f"{name}_best_f1"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(got.activation_rate, golden[f"{name}_act_r"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(got.router_size, golden[f"{name}_best_m"], rtol=1e-5)


def test_positions_add_up_to_srp(make_trace):
    trace = make_trace()
    metric = PositionSRP(num_layers=2, num_experts=6, num_domains=3, seq_len=40, segment_length=5)
    metric.update(trace)
    pooled = segment_scores(metric.histogram.sum((0, 1, 2)))
    expected = segment_scores(segment_histogram(trace.expert_ids, 6, 5).sum((0, 1, 2)))
    assert vars(pooled) == vars(expected)
    assert metric.compute().center[0] == 2


def test_one_position_has_no_spread(make_trace):
    metric = PositionSRP(num_layers=2, num_experts=6, num_domains=3, seq_len=40, segment_length=40)
    metric.update(make_trace())
    assert metric.compute().spread.isnan()


def test_sequences_of_another_length_are_refused(make_trace):
    metric = PositionSRP(num_layers=2, num_experts=6, num_domains=3, seq_len=30, segment_length=5)
    with pytest.raises(ValueError, match="sequences of 30 tokens, but the trace has 40"):
        metric.update(make_trace())
