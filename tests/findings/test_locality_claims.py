"""Claims about locality, on tables written by hand where the answer is known."""

import math

import pandas as pd
import pytest

from moe_toy.findings.claims import LOCALITY, PAPER, Verdict, check_claim, check_claims, claims_about

LRU, CV, BITS = "cache/lru@layer/ratio_2", "load/cv", "val/bits_per_byte"
SRP, PROPER = "consistency/srp@16", "consistency/above_sequence@16"
COEFFICIENTS = {"0.03": 0.4, "0.1": 0.2, "0.3": 0.1}
"""The imbalance that a coefficient leads to."""


def run(locality: str, coefficient: str, seed: int, **changes: float) -> dict:
    """Without a scheme, hit rates rise by .5 for each unit of imbalance, and bits per byte fall by .1."""
    cv = COEFFICIENTS[coefficient] + changes.get("cv", 0.0)
    noise = seed / 1000
    return {
        "arm": f"balance.coefficient={coefficient},locality={locality}",
        "seed": seed,
        "locality": locality,
        "balance.coefficient": coefficient,
        "num_experts": 64,
        "top_k": 8,
        "num_moe_layers": 4,
        CV: cv,
        LRU: 0.3 + 0.5 * cv + noise + changes.get("lru", 0.0),
        BITS: 2.0 - 0.1 * cv + noise + changes.get("bits", 0.0),
        SRP: 0.4 + changes.get("srp", 0.0) + noise * (locality != "none"),
        PROPER: 0.1 + changes.get("proper", 0.0),
        "load/effective_experts": 60.0 + changes.get("experts", 0.0) * (1 + noise),
    }


GOOD = {
    "none": {},
    "contrast": {"cv": 0.05, "lru": 0.2, "bits": 0.005, "srp": 0.1, "proper": 0.08},
    "adjacent": {"cv": 0.1, "lru": 0.05, "bits": 0.03, "srp": 0.02, "proper": 0.005, "experts": -5.0},
    "adjacent/strong": {"cv": 0.5, "lru": 0.1, "bits": 0.1, "srp": 0.1, "proper": 0.05, "experts": -30.0},
    "residency": {"lru": 0.4, "bits": 0.01, "srp": 0.3, "proper": 0.25},
    "document_pool": {"lru": 0.1, "bits": 0.02, "srp": 0.1, "proper": 0.02},
}


def table(**schemes: dict) -> pd.DataFrame:
    changed = {name: GOOD[name] | schemes.get(name, {}) for name in GOOD}
    return pd.DataFrame(
        [
            run(name, c, seed, **values)
            for name, values in changed.items()
            for c in COEFFICIENTS
            for seed in (11, 12, 13)
        ]
    )


def verdicts(results: pd.DataFrame) -> dict[str, str]:
    return check_claims(results).drop_duplicates("claim").set_index("claim").claim_verdict.to_dict()


def test_a_sweep_that_varies_locality_is_judged_by_the_claims_about_it():
    results = table()
    assert claims_about(results) == LOCALITY
    assert claims_about(results.drop(columns="locality")) == PAPER


def test_each_claim_holds_where_it_is_true():
    found = verdicts(table())
    assert found == {
        "balance": "holds",
        "loss": "holds",
        "residency": "holds",
        "collapse": "holds",
        "proper-contrast": "holds",
        "proper-adjacent": "fails",  # a quarter of its gain
        "proper-residency": "holds",
        "proper-pool": "fails",
    }


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("balance", {"contrast": {"lru": 0.0, "cv": 0.0}}),
        ("loss", {"contrast": {"bits": 0.02, "lru": -0.15}}),
        ("residency", {"residency": {"bits": 0.03}}),
        ("collapse", {"adjacent": {"experts": 1.0}}),
        ("proper-contrast", {"contrast": {"proper": 0.04}}),
        ("proper-residency", {"residency": {"proper": 0.1}}),
    ],
)
def test_each_claim_fails_or_stays_open_where_it_is_not(claim, changes):
    assert verdicts(table(**changes))[claim] in {"fails", "inconclusive"}


def test_what_is_uneven_gains_nothing_by_it():
    """Contrast lies on the line that coefficients draw without it, but further along."""
    rows = check_claims(table(contrast={"cv": 0.1, "lru": 0.0})).set_index("claim")
    assert rows.loc["balance"].estimate == pytest.approx(0.0, abs=1e-12)
    assert table(contrast={"cv": 0.1, "lru": 0.0}).query("locality == 'contrast'")[LRU].mean() > 0.05 + 0.41


def test_differences_are_taken_where_both_have_runs():
    rows = check_claims(table()).set_index("claim")
    assert rows.loc["balance"].estimate == pytest.approx(0.2)
    assert rows.loc["residency"].estimate == pytest.approx(0.01)
    assert rows.loc["residency"].claimed == "below 0.02"
    assert rows.loc["proper-contrast"].estimate == pytest.approx(0.08 / (0.1 + 0.012))
    assert rows.loc["collapse"].estimate.tolist() == pytest.approx([-5.06, -30.36])
    apart = check_claims(table(contrast={"cv": 9.0}))
    assert apart.set_index("claim").loc["balance"].verdict == Verdict.NOT_MEASURED


def test_a_share_is_of_the_gain_of_the_same_runs():
    """Gains of seed 11 alone were divided by the mean gain of all seeds."""
    claim = {"key": "x", "says": "", "test": "share_of_gain_at_equal", "metric": SRP, "part": PROPER, "matched": CV}
    claim |= {"column": "locality", "first": "contrast", "other": "none", "above": 0.5}
    results = table()
    results[SRP] += 0.2 * ((results.locality == "contrast") & (results.seed > 11))
    (found,) = check_claim(results.assign(**{PROPER: results[PROPER].where(results.seed == 11)}), claim)
    assert (found.seeds, found.estimate) == (1, pytest.approx(0.08 / (0.1 + 0.011)))


def test_nothing_is_measured_where_there_is_no_gain_or_no_arm():
    assert verdicts(table(contrast={"srp": -0.2}))["proper-contrast"] == "not measured"
    without = table().query("locality != 'adjacent'")
    assert verdicts(without)["collapse"] == "not measured"
    assert verdicts(table().drop(columns=LRU))["balance"] == "not measured"


def test_a_bound_from_above_is_judged_like_one_from_below():
    claim = {"key": "x", "says": "", "test": "differs_at_equal", "metric": BITS, "matched": CV, "column": "locality"}
    claim |= {"first": ["residency"], "other": "none"}
    (below,) = check_claim(table(residency={"bits": 0.019}), claim | {"below": 0.02})
    (above,) = check_claim(table(residency={"bits": 0.019}), claim | {"above": 0.02})
    assert (below.verdict, above.verdict) == (Verdict.HOLDS, Verdict.FAILS)
    assert math.isnan(below.effect_size) or below.effect_size < 0
    (one,) = check_claim(table().query("seed == 11"), claim | {"below": 0.02})
    assert one.verdict is Verdict.INCONCLUSIVE
