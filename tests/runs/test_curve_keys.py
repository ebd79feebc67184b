"""Names of curves, now and before."""

import pytest

from moe_toy.runs.curve_keys import present_name

NAMES = {
    "routing/srp@16": "consistency/srp@16",
    "routing/srp@16/layer_03": "consistency/srp@16/layer_03",
    "routing/srp@16/books": "consistency/srp@16/domain/books",
    "routing/srp_correlation@16/sch_ratio_2": "correlation/srp@16/sch_ratio_2",
    "routing/sch@4/ratio_1.5": "cache/sch@4/ratio_1.5",
    "routing/lru/ratio_2": "cache/lru/ratio_2",
    "routing/load_cv@sequence/layer_01": "load/cv@sequence/layer_01",
    "routing/max_violation": "load/max_violation",
    "routing/domain_specialization": "specialization/domain",
    "routing/domain_specialization/undefined_experts": "specialization/undefined_experts",
    "routing/vocabulary_specialization/target": "specialization/target",
    "routing/saturation": "router/saturation",
    "val/loss/books": "val/loss/domain/books",
    "val/loss": "val/loss",
    "train/loss": "train/loss",
    "moe.top_k": "moe.top_k",
}


@pytest.mark.parametrize(("old", "new"), NAMES.items())
def test_old_names_become_those_of_now_and_those_stay(old, new):
    assert present_name(old) == new
    assert present_name(new) == new
