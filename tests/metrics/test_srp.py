"""SRP against golden data, a brute-force search and hand-computed examples."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_toy.metrics import SRP

LEVELS = {
    "mg": ("model", ()),
    "lg": ("layer", (0,)),
    "eg": ("expert", (0, 1)),
    "md": ("model_by_domain", (0,)),
    "ld": ("layer_by_domain", (1, 0)),
    "ed": ("expert_by_domain", (1, 2, 0)),
}
FIELDS = {  # golden name: (our name, absolute tolerance, relative tolerance)
    "act_r": ("activation_rate", 1e-6, 0),
    "best_f1": ("srp", 1e-6, 0),
    "best_m": ("router_size", 0, 1e-5),
    "best_m_exact": ("router_size", 0, 1e-6),
    "best_t": ("threshold", 0, 0),
}


def scores(trace, segment_length, num_domains=1):
    layers = trace.expert_ids.shape[0]
    metric = SRP(
        num_layers=layers, num_experts=trace.num_experts, num_domains=num_domains, segment_length=segment_length
    )
    metric.update(trace)
    return metric.compute()


@pytest.mark.parametrize("level", LEVELS)
def test_equals_the_published_code(golden, level):
    attribute, axes = LEVELS[level]
    for row, segment_length in enumerate(golden.srp_lengths):
        got = getattr(scores(golden.trace, segment_length, golden.num_domains), attribute)
        for name, (field, atol, rtol) in FIELDS.items():
            ours = np.transpose(getattr(got, field).numpy(), axes)
            np.testing.assert_allclose(ours, golden[f"exp_srp_{level}_{name}"][row], rtol, atol, err_msg=name)


@pytest.mark.parametrize(
    ("tokens", "num_experts", "segment_length", "expected"),
    [
        ([(0,), (1,), (0,), (2,)], 3, 2, (12 / 18, 1, 2)),
        ([(0,), (1,), (0,), (2,)], 3, 4, (0.5, 0, 3)),
        ([(0, 1), (1, 2), (3, 0), (0, 2), (1, 0), (2, 3)], 4, 2, (20 / 27, 1, 1.7)),
        ([(0, 1), (1, 2), (3, 0), (0, 2), (1, 0), (2, 3)], 4, 4, (0.7, 2, 1.5)),
    ],
)
def test_hand_computed(trace_of, tokens, num_experts, segment_length, expected):
    got = scores(trace_of(tokens, num_experts), segment_length).model
    assert (got.srp, got.threshold, got.router_size) == pytest.approx(expected, abs=1e-12)


def brute_force(expert_ids, num_experts, m):
    """Best F1 over thresholds, segment by segment, in plain Python."""
    best = 0.0
    for threshold in range(m + 1):
        matched = predicted = actual = 0
        for sequence in expert_ids.flatten(0, 1).tolist():
            for start in range(len(sequence) - m + 1):
                segment = sequence[start : start + m]
                for expert in range(num_experts):
                    uses = sum(expert in token for token in segment)
                    actual += uses
                    if uses >= threshold:
                        matched += uses
                        predicted += m
        best = max(best, 2 * matched / max(predicted + actual, 1))
    return best


traces = st.builds(
    dict,
    layers=st.integers(1, 2),
    batch=st.integers(1, 3),
    seq=st.integers(1, 12),
    k=st.integers(1, 3),
    num_experts=st.integers(3, 5),
    seed=st.integers(0, 10**6),
    sticky=st.sampled_from([0.0, 0.5, 1.0]),
)


@settings(max_examples=30, deadline=None)
@given(sizes=traces, segment_length=st.integers(1, 6))
def test_equals_brute_force(make_trace, sizes, segment_length):
    trace = make_trace(**sizes)
    got = scores(trace, segment_length, 3).model.srp
    if segment_length > sizes["seq"]:
        assert got.isnan()
    else:
        assert got == pytest.approx(brute_force(trace.expert_ids, trace.num_experts, segment_length), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(sizes=traces, segment_length=st.integers(1, 12))
def test_never_below_the_floor_of_taking_everyone(make_trace, sizes, segment_length):
    k, num_experts = sizes["k"], sizes["num_experts"]
    got = scores(make_trace(**sizes), segment_length, 3).model
    if segment_length <= sizes["seq"]:
        assert got.srp >= 2 * k / (num_experts + k) - 1e-12
        assert got.activation_rate == pytest.approx(k / num_experts)


@settings(max_examples=20, deadline=None)
@given(sizes=traces, segment_length=st.integers(1, 6), seed=st.integers(0, 99))
def test_renaming_experts_changes_only_their_order(make_trace, sizes, segment_length, seed):
    trace = make_trace(**sizes)
    names = torch.randperm(trace.num_experts, generator=torch.Generator().manual_seed(seed))
    renamed = type(trace)(**{**vars(trace), "expert_ids": names[trace.expert_ids]})
    before, after = scores(trace, segment_length, 3), scores(renamed, segment_length, 3)
    torch.testing.assert_close(after.model.srp, before.model.srp, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(after.expert.srp[:, names], before.expert.srp, rtol=0, atol=0, equal_nan=True)


def test_segments_of_one_token_are_served_perfectly(make_trace):
    got = scores(make_trace(), 1, 3).model
    assert (got.srp, got.router_size) == (1, 1)


@pytest.mark.parametrize("segment_length", [1, 3, 17])
def test_activating_every_expert_scores_one(make_trace, segment_length):
    assert scores(make_trace(k=6, num_experts=6), segment_length, 3).model.srp == 1


def test_dead_expert_scores_zero_and_not_nan(trace_of):
    got = scores(trace_of([(0,), (1,), (0,)], 3), 2).expert
    assert [x[0, 2] for x in (got.srp, got.threshold, got.router_size, got.activation_rate)] == [0, 0, 0, 0]


def test_sequence_shorter_than_a_segment_is_undefined(trace_of):
    got = scores(trace_of([(0,), (1,)], 3), 3)
    assert all(x.isnan().all() for x in vars(got.expert).values())
    assert all(x.isnan() for x in vars(got.model).values())


def test_one_layer_keeps_its_axis(trace_of):
    assert scores(trace_of([(0,), (1,)], 3), 2).layer.srp.shape == (1,)


def test_absent_domain_is_undefined(trace_of):
    got = scores(trace_of([(0,), (1,)], 3), 1, num_domains=2).model_by_domain.srp
    assert got[0] == 1
    assert got[1].isnan()


def test_segment_length_below_one_is_refused():
    with pytest.raises(ValueError, match="segment_length must be at least 1 token, not 0"):
        SRP(num_layers=1, num_experts=2, segment_length=0)


def test_trace_of_another_model_is_refused(make_trace):
    with pytest.raises(ValueError, match="2 MoE layers of 6 experts, but SRP was made for 3 layers of 6"):
        SRP(num_layers=3, num_experts=6, num_domains=3).update(make_trace())
