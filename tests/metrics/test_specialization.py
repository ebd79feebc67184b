"""Domain specialization against golden data and by hand."""

import pytest
import torch

from moe_toy.metrics import SRP, DomainSpecialization, domain_scores, pearson


def scores(golden):
    metric = DomainSpecialization(**golden.sizes)
    metric.update(golden.trace)
    return metric.compute()


def test_equals_the_published_code(golden):
    got = scores(golden)
    expected = torch.from_numpy(golden["exp_dspec_cv"]).double()
    torch.testing.assert_close(got.value, expected, rtol=0, atol=1e-5, equal_nan=True)
    assert got.mean == pytest.approx(golden["exp_dspec_mean"], abs=1e-5, nan_ok=True)
    assert got.undefined_experts == expected.isnan().sum()


def test_correlation_with_srp_equals_the_published_code(golden):
    metric = SRP(**golden.sizes, segment_length=16)
    metric.update(golden.trace)
    correlation = pearson(scores(golden).value, metric.compute().expert.srp)
    assert correlation == pytest.approx(golden["exp_dspec_corr"], abs=1e-4, nan_ok=True)


def test_rates_equal_those_of_srp(golden):
    metric = SRP(**golden.sizes, segment_length=16)
    metric.update(golden.trace)
    assert torch.equal(scores(golden).activation_rate, metric.compute().expert_by_domain.activation_rate)


def test_expert_of_a_single_domain_is_undefined_and_counted():
    got = domain_scores(torch.tensor([[[0.2, 0.1]], [[0.0, 0.3]], [[1e-5, 0.2]]]).double())
    assert got.value[0, 0].isnan()
    assert got.value[0, 1] == pytest.approx(0.5)
    assert got.mean == pytest.approx(0.5)
    assert got.dropped_domains.tolist() == [[2, 0]]
    assert got.undefined_experts == 1


def test_equal_use_in_all_domains_scores_zero():
    assert domain_scores(torch.full((3, 1, 2), 0.25).double()).value.tolist() == [[0, 0]]


def test_domains_with_opposite_experts_correlate_negatively():
    got = domain_scores(torch.tensor([[[0.1, 0.3]], [[0.3, 0.1]]]).double()).domain_correlation
    torch.testing.assert_close(got, torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).double())


def test_experts_prefer_the_domain_in_which_they_are_most_active_the_first_of_equals():
    rate = torch.tensor([[[0.5, 0.0, 0.2, 0.1]], [[0.1, 0.0, 0.2, 0.3]]], dtype=torch.float64)
    scores = domain_scores(rate)
    assert scores.preferred_domain.tolist() == [[0, -1, 0, 1]]
    assert scores.experts_of.tolist() == pytest.approx([2 / 3, 1 / 3])
    assert domain_scores(torch.zeros_like(rate)).experts_of.isnan().all()


def test_a_domain_without_text_takes_no_domain_from_an_expert():
    rate = torch.tensor([[[0.5, 0.1]], [[torch.nan] * 2], [[0.3, 0.2]]], dtype=torch.float64)
    scores = domain_scores(rate)
    assert scores.preferred_domain.tolist() == [[0, 2]]
    assert scores.experts_of.tolist() == pytest.approx([0.5, torch.nan, 0.5], nan_ok=True)
