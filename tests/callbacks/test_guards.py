"""What tells locality from collapse: the share of the busiest expert, and SRP above that of shuffled tokens."""

import pytest

from moe_toy.callbacks.consistency import SegmentConsistencyCallback
from moe_toy.callbacks.load_balance import LoadBalanceCallback
from moe_toy.metrics.null_models import null_scores
from moe_toy.metrics.srp import SRP


def test_srp_is_compared_with_shuffled_tokens(curves, subject, trace):
    def srp(trace):
        metric = SRP(**subject.shape)
        metric.update(trace)
        return metric.compute().model.srp

    logged = curves(SegmentConsistencyCallback(segment_lengths=[4, 16], detailed=[16]), trace)
    nulls = null_scores(trace, srp, repeats=8)
    assert logged["consistency/above_sequence@16"] == pytest.approx((nulls.raw - nulls.sequence).item(), abs=0.01)
    assert logged["consistency/above_corpus@16"] == pytest.approx((nulls.raw - nulls.corpus).item(), abs=0.01)
    assert "consistency/above_sequence@4" not in logged


def test_what_is_asked_for_in_detail_is_measured(curves, subject, trace):
    """As with callbacks.consistency.segment_lengths=[4], which leaves detailed as it is."""
    callback = SegmentConsistencyCallback(segment_lengths=[4], detailed=[16])
    assert {"consistency/srp@4", "consistency/srp@16", "consistency/srp@16/layer_03"} <= curves(callback, trace).keys()
    assert set(callback.histograms({name: metric.compute() for name, metric in callback.metrics.items()}))


def test_the_busiest_expert_of_any_layer_is_told(curves, trace):
    callback = LoadBalanceCallback(segment_length=16, per_layer=False, warn_dead_fraction=1.0)
    shares = [(layer == expert).any(-1).float().mean() for layer in trace.expert_ids for expert in range(6)]
    assert curves(callback, trace)["load/largest_share"] == pytest.approx(max(shares).item())
