"""How many seeds are needed, against the definition and by hand."""

import math

import pandas as pd
import pytest

from moe_toy.findings import paper, seeds
from moe_toy.findings.student_t import mean_interval
from tests.findings.test_claims import SRP, results


@pytest.mark.parametrize(("spread", "half_width"), [(1.0, 1.0), (1.0, 0.5), (0.0083, 0.0066), (0.01, 0.3)])
def test_one_seed_less_would_be_too_wide(spread, half_width):
    def half(count: int) -> float:
        values = [1.0, -1.0] * (count // 2) + [0.0] * (count % 2)
        deviation = math.sqrt(sum(value**2 for value in values) / (count - 1))
        _, _, high = mean_interval([value * spread / deviation for value in values])
        return high

    needed = seeds.seeds_needed(spread, half_width)
    assert half(needed) <= half_width
    assert needed == 2 or half(needed - 1) > half_width


def test_two_seeds_are_the_least_and_what_nobody_can_run_has_no_number():
    assert seeds.seeds_needed(0.0, 0.1) == 2
    assert seeds.seeds_needed(1.0, 1e-6) is None


def plan(**arms) -> pd.DataFrame:
    return seeds.plan_seeds(results(**arms)).set_index("comparison")


def test_half_of_the_papers_difference_is_aimed_at():
    found = plan(skip1=[0.41, 0.42, 0.43], baseline=[0.40, 0.40, 0.40]).loc["skip1 - baseline"]
    numbers = paper.numbers().set_index("model").srp_16
    assert found.published == pytest.approx(numbers["DenseFst"] - numbers["Baseline"])
    assert (found.spread, found.seeds) == (pytest.approx(0.01), 3)
    assert found.aim == pytest.approx(found.published / 2)
    assert found.half_width == pytest.approx(4.3027 * 0.01 / math.sqrt(3), rel=1e-4)
    assert found.seeds_needed == seeds.seeds_needed(0.01, found.aim) == 12


def test_of_a_range_half_of_its_margin():
    found = plan(sparse2=[0.41, 0.42, 0.43], baseline=[0.40, 0.40, 0.40]).loc["sparse2 - baseline"]
    assert found.aim == pytest.approx(0.01)  # within 0.02; the paper's difference is 0.0011


def test_without_a_number_of_the_paper_half_of_the_smallest_difference_that_matters():
    rows = [
        {"arm": f"{scope}{cv}", "seed": seed, "balance": scope, "load/cv": cv, SRP: cv}
        for seed in (1, 2, 3)
        for scope in ("global_batch", "micro_batch", "sequence")
        for cv in (0.1, 0.2)
    ]
    found = seeds.plan_seeds(pd.DataFrame(rows).assign(num_experts=64, top_k=8))
    assert found.claim.tolist() == ["b", "b"]
    assert found.published.isna().all()
    assert found.aim.tolist() == pytest.approx([0.005, 0.005])


def test_one_seed_has_no_spread_to_plan_by():
    assert plan(skip1=[0.41], baseline=[0.40]).empty


def test_no_number_is_shown_as_no_number(capsys):
    table = seeds.plan_seeds(results(skip1=[0.41, 0.42, 0.43], baseline=[0.40] * 3))
    seeds.show_seeds(table.assign(seeds_needed=pd.array([None], "Int64"), published=math.nan))
    printed = capsys.readouterr().out
    assert "skip1 - baseline" in printed
    assert "nan" not in printed.lower()
