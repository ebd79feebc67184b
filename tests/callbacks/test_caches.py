import math

import pytest

from moe_toy.callbacks.caches import CacheCallback
from moe_toy.metrics import SRP, CacheHitRate, pearson


def test_every_policy_is_logged_at_its_ratios_with_the_values_of_the_metrics(curves, subject, trace):
    ratios = {"sch": [1, 1.5, 4], "lru": [2]}
    logged = curves(CacheCallback(segment_length=16, cache_ratios=ratios, sample_stride=1), trace)
    sch = CacheHitRate(**subject.shape, top_k=2, policy="sch", scope="model")
    lru = CacheHitRate(**subject.shape, top_k=2, policy="lru", scope="model")
    sch.update(trace)
    lru.update(trace)
    assert logged["cache/sch@16/ratio_1"] == sch.compute().hit_rate[0, 5]  # 1 x 2 experts x 3 layers
    assert logged["cache/sch@16/ratio_1.5"] == sch.compute().hit_rate[0, 8]
    assert logged["cache/lru/ratio_2"] == lru.compute().hit_rate[0, 11]
    assert math.isnan(logged["cache/sch@16/ratio_4"])  # more experts than there are
    assert "cache/lru/ratio_1" not in logged


def test_the_correlation_of_srp_and_sch_is_over_layers_and_domains(curves, subject, trace):
    logged = curves(CacheCallback(segment_length=16, cache_ratios={"sch": [1.5]}, sample_stride=1), trace)
    srp = SRP(**subject.shape, segment_length=16)
    sch = CacheHitRate(**subject.shape, top_k=2, policy="sch", scope="layer")
    srp.update(trace)
    sch.update(trace)
    expected = pearson(srp.compute().layer_by_domain.srp, sch.compute().by_domain[..., 2])
    assert logged["correlation/srp@16/sch_ratio_1.5"] == pytest.approx(expected.item())


def test_real_policies_alone_need_no_segments(curves, trace):
    logged = curves(CacheCallback(segment_length=16, cache_ratios={"lfu": [2]}, sample_stride=2), trace)
    assert list(logged) == ["cache/lfu/ratio_2"]


def test_an_engine_reads_layer_after_layer_and_misses_what_it_has_not_seen(curves, subject, trace):
    callback = CacheCallback(segment_length=16, cache_ratios={}, engine_ratios=[2], sample_stride=1)
    logged = curves(callback, trace)
    lru = CacheHitRate(**subject.shape, top_k=2, policy="lru", scope="model", order="layer", cold="miss")
    lru.update(trace)
    assert logged["cache/lru@layer/ratio_2"] == lru.compute().hit_rate[0, 11]
    shares = [[], [], []]
    for sequence, domain in enumerate(trace.domain_ids.tolist()):
        ids = trace.expert_ids[:, sequence]
        first = sum(len(set(layer.flatten().tolist())) for layer in ids)
        shares[domain].append(first / ids.numel())
    mean = sum(sum(domain) / len(domain) for domain in shares) / 3
    assert logged["cache/cold_misses"] == pytest.approx(mean)
