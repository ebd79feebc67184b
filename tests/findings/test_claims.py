"""Verdicts on results made by hand, where the answer is known."""

import math

import numpy as np
import pandas as pd
import pytest
import yaml

from moe_toy.errors import UserError
from moe_toy.findings import paper
from moe_toy.findings.claims import PAPER, Verdict, check_claim, check_claims, stated_claims, together, verdict
from moe_toy.findings.comparison import fisher
from moe_toy.report.figures.sweep import over_seeds

SRP = "consistency/srp@16"
SIZE = {"num_experts": 64, "top_k": 8, "num_moe_layers": 4}
FALLING = {"key": "x", "says": "it falls", "test": "falling", "metric": SRP, "arms": ["nolb", "baseline"]}


def results(**arms) -> pd.DataFrame:
    """`results(nolb=[0.5, 0.6])`: SRP of each arm for seeds 1, 2, ..."""
    rows = [
        {"arm": arm, "seed": seed, SRP: value, **SIZE}
        for arm, values in arms.items()
        for seed, value in enumerate(values, start=1)
    ]
    return pd.DataFrame(rows)


def verdicts(table: pd.DataFrame, claim: dict) -> list[Verdict]:
    return [finding.verdict for finding in check_claim(table, claim)]


@pytest.mark.parametrize(
    ("nolb", "baseline", "expected"),
    [
        ([0.56, 0.58, 0.60], [0.43, 0.44, 0.48], Verdict.HOLDS),
        ([0.43, 0.44, 0.48], [0.56, 0.58, 0.60], Verdict.FAILS),
        ([0.50, 0.50, 0.50], [0.49, 0.55, 0.40], Verdict.INCONCLUSIVE),
        ([0.56], [0.43], Verdict.INCONCLUSIVE),
    ],
    ids=["holds", "fails", "open", "one seed"],
)
def test_an_order_of_arms(nolb, baseline, expected):
    assert verdicts(results(nolb=nolb, baseline=baseline), FALLING) == [expected]


def test_pairing_removes_what_the_seeds_have_in_common():
    """The arms overlap widely, but within each seed the difference is 0.02."""
    found = check_claim(results(nolb=[0.32, 0.52, 0.73], baseline=[0.30, 0.50, 0.70]), FALLING)[0]
    assert found.verdict is Verdict.HOLDS
    assert (found.seeds, found.comparison, found.claimed) == (3, "nolb - baseline", "above 0")
    assert found.estimate == pytest.approx(0.07 / 3)
    assert found.effect_size == pytest.approx(np.mean([0.02, 0.02, 0.03]) / np.std([0.02, 0.02, 0.03], ddof=1))


def test_only_seeds_that_have_both_arms_count():
    assert check_claim(results(nolb=[0.5, 0.6, 0.9], baseline=[0.4, 0.49]), FALLING)[0].seeds == 2


@pytest.mark.parametrize(
    ("claim", "missing"),
    [
        (FALLING, "no finished arm nolb"),
        (FALLING | {"metric": "consistency/srp@99"}, "no column consistency/srp@99"),
        (FALLING | {"arms": ["baseline", "late"]}, "no seed has all of it"),
    ],
)
def test_what_is_not_there_is_not_measured(claim, missing):
    table = pd.concat([results(baseline=[0.4, 0.5]), results(late=[0.4]).assign(seed=9)])
    (found,) = check_claim(table, claim)
    assert found.verdict is Verdict.NOT_MEASURED
    assert missing in found.comparison


def test_equality_needs_the_whole_interval_within_the_margin():
    claim = FALLING | {"test": "equal", "margin": 0.02}
    assert verdicts(results(nolb=[0.401, 0.402, 0.403], baseline=[0.40] * 3), claim) == [Verdict.HOLDS]
    assert verdicts(results(nolb=[0.401, 0.402, 0.43], baseline=[0.40] * 3), claim) == [Verdict.INCONCLUSIVE]
    assert verdicts(results(nolb=[0.501, 0.502, 0.503], baseline=[0.40] * 3), claim) == [Verdict.FAILS]


def test_the_floor_of_even_routing_is_taken_off():
    table = results(top16=[0.55, 0.56, 0.57], baseline=[0.43, 0.44, 0.45])
    table.loc[table.arm == "top16", "top_k"] = 16
    found = check_claim(table, FALLING | {"metric": "srp_above_floor", "arms": ["top16", "baseline"]})[0]
    assert found.estimate == pytest.approx(0.12 - (2 * 16 / 80 - 2 * 8 / 72))


def test_schemes_are_compared_where_they_are_equally_even():
    """Both lines rise by 1 per unit of imbalance; the global one lies 0.1 higher, though its runs are more even."""
    rows = [
        {
            "seed": seed,
            "balance": scope,
            "load_cv": cv,
            SRP: cv + (0.1 + seed / 100) * (scope == "global_batch"),
            **SIZE,
        }
        for seed in (1, 2, 3)
        for scope, cvs in {"global_batch": (0.1, 0.2, 0.4), "micro_batch": (0.3, 0.5, 0.9), "sequence": (2, 3)}.items()
        for cv in cvs
    ]
    claim = {
        "key": "b",
        "says": "higher at equal balance",
        "test": "higher_at_equal",
        "metric": SRP,
        "matched": "load_cv",
        "column": "balance",
        "higher": "global_batch",
        "lower": ["micro_batch"],
    }
    found = check_claim(pd.DataFrame(rows), claim)[0]
    assert found.verdict is Verdict.HOLDS
    assert found.estimate == pytest.approx(0.12)
    assert verdicts(pd.DataFrame(rows), claim | {"lower": ["sequence"]}) == [Verdict.NOT_MEASURED]  # never as even


def test_metrics_of_one_run_are_compared_in_the_mean_over_arms():
    table = results(nolb=[0.5] * 3, baseline=[0.4] * 3).assign(**{"r/domain": [0.2, 0.2, 0.2, 0.7, 0.7, 0.8]})
    table["r/input"] = [0.3, 0.3, 0.3, 0.1, 0.1, 0.1]
    claim = {"key": "f", "says": "", "test": "metrics_higher", "higher": "r/domain", "lower": ["r/input"]}
    found = check_claim(table, claim | {"arms": ["nolb", "baseline"]})[0]
    assert found.verdict is Verdict.HOLDS
    assert found.estimate == pytest.approx((0.5 + 0.5 + 0.6) / 6)
    assert verdicts(table, claim | {"arms": ["nolb"]}) == [Verdict.FAILS]


def test_correlation_over_arms_is_judged_against_its_bound():
    values = {f"arm{i}": [0.1 * i, 0.1 * i + 0.01, 0.1 * i + 0.02] for i in range(1, 7)}
    table = results(**values)
    claim = {"key": "g", "says": "", "test": "correlation_over_arms", "x": SRP, "y": "sch", "above": 0.97}
    assert verdicts(table.assign(sch=table[SRP] + 0.001 * (table.seed == 2)), claim) == [Verdict.HOLDS]
    noisy = table.assign(sch=table[SRP] * [(-1) ** (i // 3) for i in range(len(table))])
    assert verdicts(noisy, claim) == [Verdict.FAILS]


def test_prediction_must_improve_with_every_look_ahead():
    generator = np.random.default_rng(0)
    table = results(**{f"arm{i}": [0.5] * 4 for i in range(12)})
    real = generator.uniform(size=(len(table), 2))
    for column, ratio in enumerate((1, 2)):
        table[f"cache/lru/ratio_{ratio}"] = real[:, column]
        for length, noise in ((4, 0.5), (16, 0.1), (64, 0.02)):
            table[f"cache/sch@{length}/ratio_{ratio}"] = real[:, column] + noise * generator.normal(size=len(table))
    claim = {"key": "h", "says": "", "test": "prediction_improves", "policies": ["lru"], "cache_ratios": [1, 2]}
    assert verdicts(table, claim | {"segment_lengths": [4, 16, 64]}) == [Verdict.HOLDS] * 2
    assert verdicts(table, claim | {"segment_lengths": [64, 4]}) == [Verdict.FAILS]


def test_a_knee_lies_where_the_curve_leaves_chance_least_behind():
    claim = {"key": "i", "says": "", "test": "knee", "segment_length": 16, "arm": "baseline", "margin": 0.5}
    table = results(baseline=[0.4] * 3)
    for ratio, hit_rate in {0.5: 0.4, 1: 0.6, 2: 0.9, 4: 0.95, 8: 1.0}.items():
        table[f"cache/sch@16/ratio_{ratio}"] = hit_rate
    assert verdicts(table, claim | {"near": 2.0}) == [Verdict.HOLDS]
    assert verdicts(table, claim | {"near": 4.0}) == [Verdict.FAILS]
    rising = table.drop(columns=["cache/sch@16/ratio_4", "cache/sch@16/ratio_8"])
    assert verdicts(rising, claim | {"near": 2.0}) == [Verdict.NOT_MEASURED]


def test_the_order_of_the_paper_is_found_in_its_own_numbers():
    published = paper.numbers().set_index("model").srp_16
    ours = {arm: [published[model] + shift for shift in (0, 0.1, 0.2)] for model, arm in paper.ARM_OF_MODEL.items()}
    claim = {"key": "j", "says": "", "test": "paper_order", "metric": SRP, "column": "srp_16", "above": 0.648}
    assert verdicts(results(**ours), claim) == [Verdict.HOLDS]
    assert verdicts(results(**{arm: [-v for v in values] for arm, values in ours.items()}), claim) == [Verdict.FAILS]


def test_verdicts_by_where_the_interval_lies():
    infinite = float("inf")
    assert verdict(0.1, 0.2, 0.0, infinite) is Verdict.HOLDS
    assert verdict(-0.2, -0.1, 0.0, infinite) is Verdict.FAILS
    assert verdict(-0.1, 0.1, 0.0, infinite) is Verdict.INCONCLUSIVE
    assert verdict(2.6, 2.7, 1.5, 2.5) is Verdict.FAILS


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([-0.002, 0.001, 0.002], Verdict.NO_DIFFERENCE),
        ([0.004, 0.005, 0.006], Verdict.HOLDS),  # it does not matter, but it has a direction
        ([-0.006, -0.005, -0.004], Verdict.FAILS),
        ([-0.001, 0.003, 0.008], Verdict.INCONCLUSIVE),  # reaches beyond what does not matter
        ([-0.006, 0.001, 0.009], Verdict.INCONCLUSIVE),
        ([0.001], Verdict.INCONCLUSIVE),
    ],
    ids=["none", "up", "down", "one side", "both sides", "one seed"],
)
def test_no_difference_that_matters_takes_the_place_of_an_open_verdict_only(differences, expected):
    table = results(nolb=[0.4 + difference for difference in differences], baseline=[0.4] * len(differences))
    assert verdicts(table, FALLING | {"negligible": 0.01}) == [expected]
    directions = {Verdict.HOLDS, Verdict.FAILS}
    assert verdicts(table, FALLING) == [expected if expected in directions else Verdict.INCONCLUSIVE]


def test_a_test_that_knows_no_negligible_difference_refuses_one():
    claim = {"key": "x", "says": "", "test": "correlation_logged", "metric": SRP, "arm": "nolb", "above": 0.9}
    with pytest.raises(TypeError, match="negligible"):
        check_claim(results(nolb=[0.5]), claim | {"negligible": 0.01})


def test_claims_thought_of_after_the_fact_are_tested_on_later_seeds_only():
    claim = FALLING | {"exploratory": True, "seeds_after": 3}
    seen = results(nolb=[0.5, 0.5, 0.5], baseline=[0.4, 0.41, 0.42])
    (found,) = check_claim(seen, claim)
    assert (found.verdict, found.comparison) == (Verdict.NOT_MEASURED, "no seed after 3")
    later = results(nolb=[0.3, 0.31, 0.32], baseline=[0.4, 0.4, 0.4]).assign(seed=[4, 5, 6] * 2)
    (found,) = check_claim(pd.concat([seen, later]), claim)
    assert (found.verdict, found.seeds) == (Verdict.FAILS, 3)


def test_they_stand_apart_and_each_says_what_had_been_seen():
    table = results(top16=[0.5] * 3, baseline=[0.4] * 3, top2=[0.3] * 3)
    assert set(check_claims(table).claim).isdisjoint(check_claims(table, exploratory=True).claim)
    assert check_claims(table, exploratory=True).verdict.eq("not measured").all()
    late = stated_claims(table, exploratory=True)
    assert [claim["key"] for claim in late] == ["d3x", "hx"]
    assert all(claim["seeds_after"] == 3 for claim in late)
    stated = yaml.safe_load(PAPER.read_text())
    assert not [claim["key"] for claim in stated if "seeds_after" in claim and not claim.get("exploratory")]


def test_a_number_over_arms_is_taken_from_seeds_that_have_all_of_them():
    """A seed without the collapsed arm says another thing, and must not be averaged with those that have it."""
    table = results(**{f"arm{i}": [0.1 * i] * 4 for i in range(1, 7)})
    table["sch"] = table[SRP] + 0.01 * table.seed
    part = table[(table.seed < 4) | (table.arm != "arm6")]
    over_arms = {"key": "g", "says": "", "test": "correlation_over_arms", "x": SRP, "y": "sch", "above": 0.97}
    assert [check_claim(rows, over_arms)[0].seeds for rows in (table, part)] == [4, 3]
    mean = {"key": "f", "says": "", "test": "metrics_higher", "higher": "sch", "lower": [SRP]}
    mean["arms"] = [f"arm{i}" for i in range(1, 7)]
    assert [check_claim(rows, mean)[0].seeds for rows in (table, part)] == [4, 3]
    for column in ("cache/lru/ratio_1", "cache/sch@4/ratio_1", "cache/sch@16/ratio_1"):
        part = part.assign(**{column: part[SRP]})
    look_ahead = {"key": "h", "says": "", "test": "prediction_improves", "policies": ["lru"], "cache_ratios": [1]}
    look_ahead["segment_lengths"] = [4, 16]
    assert check_claim(part, look_ahead)[0].seeds == 3
    assert check_claim(part, look_ahead | {"without": ["arm6"]})[0].seeds == 4


def test_a_seed_without_a_correlation_says_nothing():
    """It counted as a correlation of almost 1: the bound that keeps Fisher's transformation finite took NaN's place."""
    table = results(**{f"arm{i}": [0.1 * i] * 3 for i in range(1, 6)})
    table["sch"] = (-table[SRP]).where(table.seed > 1, 0.5)  # the same for all arms of seed 1
    claim = {"key": "g", "says": "", "test": "correlation_over_arms", "x": SRP, "y": "sch", "above": 0.5}
    found = check_claim(table, claim)[0]
    assert (found.seeds, found.verdict) == (2, Verdict.FAILS)
    assert math.isnan(fisher(math.nan))
    order = {"key": "j", "says": "", "test": "paper_order", "metric": SRP, "column": "srp_16", "above": 0.5}
    equal = results(**{arm: [0.4, 0.4] for arm in paper.ARM_OF_MODEL.values()})
    assert verdicts(equal, order) == [Verdict.NOT_MEASURED]


def test_values_that_are_not_finite_have_no_verdict():
    """A loss that has overflowed ended in a traceback of the standard library."""
    (found,) = check_claim(results(nolb=[0.5, math.inf, 0.5], baseline=[0.4] * 3), FALLING)
    assert (found.verdict, found.comparison) == (Verdict.NOT_MEASURED, "nolb - baseline: a seed has inf")
    assert over_seeds(results(nolb=[0.5, math.inf]), SRP).low.item() == -math.inf
    knee = {"key": "i", "says": "", "test": "knee", "segment_length": 16, "arm": "nolb", "near": 2.0, "margin": 0.5}
    table = results(nolb=[0.5]).assign(**{"cache/sch@16/ratio_1": 0.5}).drop(columns="num_moe_layers")
    assert check_claim(table, knee)[0].comparison == "no column num_moe_layers"


def test_arms_without_one_of_two_metrics_are_left_out_of_both_means():
    """The mean of one metric was over other arms than that of the other."""
    table = results(nolb=[0.5] * 3, baseline=[0.4] * 3)
    table["r/domain"] = [0.2, 0.3, math.nan, 0.2, 0.2, 0.8]
    table["r/input"] = [0.1, 0.1, 0.9, 0.1, 0.1, 0.1]
    claim = {"key": "f", "says": "", "test": "metrics_higher", "higher": "r/domain", "lower": ["r/input"]}
    found = check_claim(table, claim | {"arms": ["nolb", "baseline"]})[0]
    assert (found.seeds, found.estimate) == (2, pytest.approx((0.1 + 0.15) / 2))
    never = check_claim(
        table.assign(**{"r/domain": table["r/domain"].where(table.arm == "baseline")}),
        claim | {"arms": ["nolb", "baseline"]},
    )[0]
    assert (never.seeds, never.estimate) == (3, pytest.approx((0.1 + 0.1 + 0.7) / 3))


def test_cache_ratios_that_a_model_cannot_have_are_no_points():
    """As a constant side did, they made every correlation of their seed one of almost 1, and every gain zero."""
    generator = np.random.default_rng(0)
    table = results(**{f"arm{i}": [0.5] * 4 for i in range(12)})
    for ratio in (1, 2):
        real = generator.uniform(size=len(table))
        table[f"cache/lru/ratio_{ratio}"] = real
        for length, noise in ((4, 0.5), (16, 0.1)):
            table[f"cache/sch@{length}/ratio_{ratio}"] = real + noise * generator.normal(size=len(table))
    claim = {"key": "h", "says": "", "test": "prediction_improves", "policies": ["lru"], "segment_lengths": [4, 16]}
    few = table.copy()
    few.loc[few.arm == "arm3", [name for name in few if name.endswith("ratio_2")]] = math.nan
    found = check_claim(few, claim | {"cache_ratios": [1, 2]})[0]
    assert (found.seeds, found.verdict) == (4, Verdict.HOLDS)
    without = few.assign(**{name: math.nan for name in few if name.endswith("ratio_2")})
    only = check_claim(without, claim | {"cache_ratios": [1, 2]})[0]
    assert only.estimate == pytest.approx(check_claim(table, claim | {"cache_ratios": [1]})[0].estimate)


def test_a_knee_is_looked_for_among_the_ratios_that_a_model_can_have():
    claim = {"key": "i", "says": "", "test": "knee", "segment_length": 16, "arm": "baseline", "margin": 0.5}
    table = results(baseline=[0.4] * 3, other=[0.4] * 3)
    for ratio, hit_rate in {0.5: 0.4, 0.55: math.nan, 1: 0.6, 2: 0.9, 4: 0.95, 8: 1.0, 12: math.nan}.items():
        table[f"cache/sch@16/ratio_{ratio}"] = hit_rate
    assert verdicts(table, claim | {"near": 2.0}) == [Verdict.HOLDS]
    nothing = table.assign(**{name: math.nan for name in table if name.startswith("cache/")})
    assert verdicts(nothing, claim | {"near": 2.0}) == [Verdict.NOT_MEASURED]


def test_one_failure_fails_a_claim_and_one_gap_leaves_it_open():
    assert together([Verdict.HOLDS, Verdict.HOLDS]) is Verdict.HOLDS
    assert together([Verdict.HOLDS, Verdict.INCONCLUSIVE]) is Verdict.INCONCLUSIVE
    assert together([Verdict.NOT_MEASURED, Verdict.FAILS]) is Verdict.FAILS
    assert together([Verdict.NO_DIFFERENCE] * 2) is Verdict.NO_DIFFERENCE
    assert together([Verdict.HOLDS, Verdict.NO_DIFFERENCE]) is Verdict.INCONCLUSIVE
    assert together([Verdict.NO_DIFFERENCE, Verdict.NOT_MEASURED]) is Verdict.NOT_MEASURED


def test_the_claims_of_the_paper_can_all_be_read():
    """The paper's own numbers, as three seeds that differ a little, hold or fail each claim that they reach."""
    numbers = paper.numbers().set_index("model").loc[list(paper.ARM_OF_MODEL)]
    seeds = {arm: [numbers.srp_16[model] + s / 1e4 for s in range(3)] for model, arm in paper.ARM_OF_MODEL.items()}
    table = results(**seeds)
    sizes = numbers.rename(paper.ARM_OF_MODEL).loc[table.arm]
    table["num_experts"], table["top_k"] = sizes.num_experts.to_numpy(), sizes.top_k.to_numpy()
    table["cache/sch@16/ratio_1.5"] = sizes["sch_1.5"].to_numpy()
    checked = check_claims(table).drop_duplicates("claim").set_index("claim").claim_verdict
    for claim in ("a", "c", "d1", "d2", "e1", "e2", "g1", "j"):
        assert checked[claim] == "holds", claim
    assert checked["d3"] == "fails"  # more active experts raise SRP by less than its floor
    assert set(checked[["b", "f", "g2", "h", "i"]]) == {"not measured"}


def test_an_unknown_test_is_named():
    with pytest.raises(UserError, match="claim x: no test 'rising'; choose one of falling, "):
        check_claim(results(baseline=[0.4]), FALLING | {"test": "rising"})
