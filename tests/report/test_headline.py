from dataclasses import replace

import pytest

from moe_toy.report.headline import headline, verdict


def test_the_box_gives_group_cache_hit_rate_and_worst_domain(golden_results):
    found = golden_results.summary["recommendation"]
    box = headline(golden_results.summary)
    assert f"group {found['group']}" in box
    assert f"{found['cache']['capacity']} of {found['cache']['num_items']} experts" in box
    assert f"{100 * found['cache']['hit_rate']['lru']:.0f} %" in box
    assert found["worst_domain"] in box


def test_without_a_knee_the_box_says_so(golden_results):
    found = golden_results.summary["recommendation"] | {"cache": None, "worst_domain": None}
    box = headline(golden_results.summary | {"recommendation": found})
    assert "No cache does better than chance" in box
    assert "Recommended cache" not in box
    assert "Worst domain" not in box


def test_names_of_domains_are_escaped(golden_results):
    found = golden_results.summary["recommendation"] | {"worst_domain": "<img src=x>"}
    summary = replace(golden_results, summary=golden_results.summary | {"recommendation": found}).summary
    assert "&lt;img src=x&gt;" in headline(summary)
    assert "<img" not in headline(summary)


@pytest.mark.parametrize(("shuffled", "popular"), [(0.44, True), (0.3, False), (None, False)])
def test_consistency_that_survives_shuffling_is_no_locality(golden_results, shuffled, popular):
    found = golden_results.summary["recommendation"] | {"srp": 0.46, "srp_unshuffled": 0.46, "group": "G2"}
    found |= {"srp_shuffled": shuffled}
    assert ("comes from popular experts" in verdict(found)) == popular
    assert ("suits expert offloading" in verdict(found)) != popular


def test_what_shuffling_costs_is_told_of_the_sequences_that_are_shuffled(golden_results):
    """A few of each domain: where domains differ in size, the whole could score less than they do shuffled."""
    found = golden_results.summary["recommendation"] | {"srp": 0.33, "srp_shuffled": 0.44, "srp_unshuffled": 0.51}
    assert "comes from popular experts" not in verdict(found)
    box = headline(golden_results.summary | {"recommendation": found})
    assert "a few sequences of each domain: 0.510, and 0.440 when shuffled" in box
