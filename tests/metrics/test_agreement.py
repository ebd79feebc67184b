import numpy as np
import pandas as pd
import pytest

from moe_toy.metrics.agreement import correlations, sch_with_caches, srp_with_sch
from tests.report.make_results import results_of, synthetic_trace


@pytest.fixture(scope="module")
def tables():
    """Two layers of 8 experts, 2 active, on three domains."""
    return results_of(synthetic_trace(layers=2, experts=8, top_k=2, domains=3, samples=2, seq=64), "small").tables


def test_srp_is_paired_with_sch_of_the_same_layer_domain_and_length(tables):
    pairs = srp_with_sch({"small": tables})
    # 2 layers, 3 domains, lengths 4, 16 and 64, ratios 0.5 to 3
    assert len(pairs) == 2 * 3 * 3 * 6
    row = pairs.iloc[17]
    srp, cache = tables["srp"], tables["cache"]
    same = f"layer == {row.layer} and domain == '{row.domain}' and segment_length == {row.segment_length}"
    assert srp.query(f"level == 'layer' and {same}").srp.tolist() == [row.srp]
    same += f" and cache_ratio == {row.cache_ratio}"
    assert cache.query(f"policy == 'sch' and scope == 'layer' and {same}").hit_rate.tolist() == [row.sch]


def test_ratios_that_are_no_whole_number_of_experts_have_no_row(tables):
    cache = tables["cache"]
    odd = cache.assign(cache_ratio=cache.capacity / 3)  # as of a model with three active experts
    assert set(srp_with_sch({"small": tables | {"cache": odd}}).cache_ratio) == {1.0, 2.0}


def test_real_caches_are_paired_at_every_capacity(tables):
    pairs = sch_with_caches({"a": tables, "b": tables})
    # 2 models, 3 domains, 16 capacities, 4 lengths (SCH may look beyond the end), 3 real policies
    assert len(pairs) == 2 * 3 * 16 * 4 * 3
    assert set(pairs.policy) == {"lru", "lfu", "belady"}


def test_models_without_domains_pair_their_pooled_rows(tables):
    pooled = {name: tables[name].query("domain.isna()") for name in ("srp", "cache")}
    assert len(srp_with_sch({"bare": pooled})) == 2 * 3 * 6
    assert len(sch_with_caches({"bare": pooled})) == 16 * 4 * 3


def test_r_is_pearsons():
    srp = np.array([0.1, 0.2, 0.4])
    srp_sch = pd.DataFrame({"segment_length": 16, "cache_ratio": 1.5, "srp": srp, "sch": [0.2, 0.1, 0.5]})
    columns = {"segment_length": 16, "policy": "lru", "sch": [0.1, 0.2, 0.3], "hit_rate": [0.2, 0.4, 0.6]}
    found = correlations(srp_sch, pd.DataFrame(columns)).set_index("y")
    assert found.r["sch"] == pytest.approx(np.corrcoef(srp, [0.2, 0.1, 0.5])[0, 1])
    assert found.r["lru"] == pytest.approx(1)
    assert np.isnan(found.r["lfu"])
    assert found.rows.to_dict() == {"sch": 3, "lru": 3, "lfu": 0, "belady": 0}
