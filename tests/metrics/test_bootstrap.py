"""Intervals against golden data for injected resamples, and the statistics of our own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from moe_toy.errors import UserError
from moe_toy.metrics import CacheHitRate, IndexResampler, PoissonResampler, SRPBootstrap, basic_interval
from moe_toy.metrics.srp_intervals import SRPIntervals

LEVELS = {
    "mg": ("model", ()),
    "lg": ("layer", (0,)),
    "eg": ("expert", (0, 1)),
    "md": ("model_by_domain", (0,)),
    "ld": ("layer_by_domain", (1, 0)),
    "ed": ("expert_by_domain", (1, 2, 0)),
}


@pytest.fixture(scope="module")
def boot(golden_named):
    return golden_named("boot_e8k2")


@pytest.fixture(scope="module")
def injected(boot) -> dict[int, SRPIntervals]:
    intervals = {}
    for segment_length in boot.srp_lengths:
        resampler = IndexResampler(torch.from_numpy(boot["in_boot_idx"]))
        metric = SRPBootstrap(**boot.sizes, segment_length=segment_length, resampler=resampler, experts=True)
        for part in torch.arange(boot.trace.expert_ids.shape[1]).split(50):
            metric.update(boot.trace.select(part))
        intervals[segment_length] = metric.compute()
    return intervals


@pytest.mark.parametrize("level", LEVELS)
def test_srp_intervals_equal_the_published_code(boot, injected, level):
    attribute, axes = LEVELS[level]
    for row, segment_length in enumerate(boot.srp_lengths):
        got = getattr(injected[segment_length], attribute)
        for bound, name in zip(got, ("ci_lb", "ci_ub"), strict=True):
            expected = boot[f"exp_srp_{level}_{name}"][row]
            np.testing.assert_allclose(np.transpose(bound.numpy(), axes), expected, rtol=0, atol=1e-5)


def test_cache_intervals_equal_the_published_code(boot):
    samples = torch.from_numpy(boot["in_cache_samples"])
    trace = replace(boot.trace.select(samples), expert_ids=boot.trace.expert_ids[:1, samples], layer_ids=(0,))
    for row, segment_length in enumerate([4, 16, 64, 256]):
        metric = CacheHitRate(
            num_layers=1,
            num_experts=8,
            top_k=2,
            segment_length=segment_length,
            resampler=IndexResampler(torch.from_numpy(boot["in_sch_boot_idx"]).T),
        )
        metric.update(trace)
        got = metric.compute()
        low, mean, high = boot["exp_sch_ci_layer0_dom0"][row]
        np.testing.assert_allclose(got.hit_rate[0], mean, atol=1e-5)
        np.testing.assert_allclose(got.interval.low[0], low, atol=1e-5)
        np.testing.assert_allclose(got.interval_by_domain.high[0, 0], high, atol=1e-5)


def test_poisson_resamples_give_nearly_the_intervals_of_drawn_indices(boot, injected):
    metric = SRPBootstrap(**boot.sizes, resampler=PoissonResampler(1000))
    metric.update(boot.trace)
    got, expected = metric.compute().model, injected[16].model
    width = (expected.high - expected.low).item()
    torch.testing.assert_close(got, expected, rtol=0, atol=0.2 * width)


def test_bounds_are_reflected_order_statistics():
    replicates = torch.arange(1000.0).double()
    got = basic_interval(torch.tensor(500.0).double(), replicates)
    assert got == (1000 - 975, 1000 - 25)


def test_undefined_replicates_do_not_count():
    replicates = torch.cat([torch.arange(1000.0).double(), torch.full((500,), torch.nan).double()])
    got = basic_interval(torch.tensor(500.0).double(), replicates)
    assert got == (25, 975)
    assert all(x.isnan() for x in basic_interval(torch.tensor(1.0).double(), replicates[1000:]))


def test_poisson_draws_have_mean_and_variance_one(make_trace):
    trace = make_trace(batch=400, seq=8)
    draws = PoissonResampler(500)(trace, trace.domain_ids).double()
    assert draws.mean() == pytest.approx(1, abs=0.01)
    assert draws.var() == pytest.approx(1, abs=0.02)
    assert draws.mean(0).var() == pytest.approx(1 / 400, rel=0.2)  # independent sequences
    assert draws.mean(1).var() == pytest.approx(1 / 500, rel=0.3)  # independent resamples


def test_draws_depend_on_seed_and_content_only(make_trace):
    trace = make_trace(batch=5)
    order = torch.tensor([3, 1, 4, 0, 2])
    draw = PoissonResampler(100, seed=1)
    assert torch.equal(draw(trace, trace.domain_ids)[order], draw(trace.select(order), trace.domain_ids[order]))
    assert not torch.equal(draw(trace, trace.domain_ids), PoissonResampler(100, seed=2)(trace, trace.domain_ids))


def test_single_sequence_has_no_interval(make_trace):
    trace = make_trace(batch=1)
    metric = SRPBootstrap(num_layers=2, num_experts=6, num_domains=3, resampler=PoissonResampler(100))
    metric.update(trace)
    assert all(bound.isnan() for bound in metric.compute().model)


def test_sequences_shorter_than_a_segment_show_no_spread(make_trace):
    metric = SRPBootstrap(num_layers=2, num_experts=6, num_domains=3, resampler=PoissonResampler(100))
    metric.update(make_trace(batch=1))
    metric.update(make_trace(batch=9, seq=15))
    assert all(bound.isnan() for bound in metric.compute().model)


def test_caches_of_a_single_sequence_have_no_interval(make_trace):
    """Of three domains the first has three sequences, of which a stride of 2 keeps two; the second has two, of which it
    keeps one; the last has none."""
    options = {"num_layers": 2, "num_experts": 6, "top_k": 2, "num_domains": 3, "sample_stride": 2}
    metric = CacheHitRate(**options, resampler=PoissonResampler(100))
    both = make_trace(batch=5)
    metric.update(both.select(slice(3)).with_domains(torch.zeros(3, dtype=torch.int64)))
    low = metric.compute().interval.low
    assert (low < metric.compute().hit_rate)[:, 0].all()
    metric.reset()
    metric.update(both.with_domains(torch.tensor([0, 0, 0, 1, 1])))
    got = metric.compute()
    torch.testing.assert_close(got.interval_by_domain.low[0], low, rtol=0, atol=0)
    assert got.interval_by_domain.low[1:].isnan().all()
    assert got.interval.low.isnan().all()  # of a mean over both


def test_indices_serve_one_metric_once(make_trace):
    """Each metric counts the sequences that it has seen."""
    resampler, trace = IndexResampler(torch.zeros(6, 100, dtype=torch.int64)), make_trace(domains=1)
    SRPBootstrap(num_layers=2, num_experts=6, segment_length=4, resampler=resampler).update(trace)
    with pytest.raises(UserError, match=r"indices for 6 sequences of a domain.* of its own"):
        SRPBootstrap(num_layers=2, num_experts=6, segment_length=16, resampler=resampler).update(trace)


def test_too_few_resamples_are_refused():
    with pytest.raises(ValueError, match=r"30 resamples are too few for confidence 0\.95; use at least 40"):
        PoissonResampler(30)
    PoissonResampler(40)
