"""The sections of a page about claims, from tables made by hand."""

import math

import pandas as pd

from moe_toy.findings.claims import Finding, Verdict
from moe_toy.findings.seeds import SEEDS
from moe_toy.report.claims import claim_sections, headline

FOUND = [
    Finding("a", "it falls", "x - y", Verdict.HOLDS, 3, 0.1, 0.05, 0.15),
    Finding("a", "it falls", "y - z", Verdict.NO_DIFFERENCE, 3, 0.0, -0.004, 0.004),
    Finding("b", "it rises", "x - z", Verdict.INCONCLUSIVE, 1, 0.0, -math.inf, math.inf),
]


def checked(findings: list[Finding], whole: Verdict) -> pd.DataFrame:
    return pd.DataFrame(findings).assign(claim_verdict=whole)


def test_claims_come_before_those_thought_of_after_the_fact_and_the_seeds_needed():
    late = [Finding("ax", "it falls without z", "no seed after 3", Verdict.NOT_MEASURED)]
    tables = {
        "claims": checked(FOUND, Verdict.INCONCLUSIVE),
        "exploratory": checked(late, Verdict.NOT_MEASURED),
        "seeds": pd.DataFrame([("a", "x - y", 3, 0.01, 0.02, math.nan, 0.005, 18)], columns=list(SEEDS)),
    }
    claims, exploratory, seeds = claim_sections(tables)
    assert [section.title for section in (claims, exploratory, seeds)] == [
        "Claims",
        "Exploratory claims",
        "Seeds needed",
    ]
    assert claims.body.count("it falls<") == 1  # for its two comparisons
    assert "no difference that matters" in claims.body
    assert "inf" not in claims.body
    assert "it falls without z" not in claims.body
    assert "it falls without z" in exploratory.body
    assert "<td class=number>18</td>" in seeds.body
    assert [section.title for section in claim_sections({"claims": tables["claims"]})] == ["Claims"]


def test_the_headline_counts_every_verdict():
    verdicts = list(Verdict)
    table = pd.concat([checked([FOUND[0]], verdict).assign(claim=str(i)) for i, verdict in enumerate(verdicts)])
    shown = headline(table, "findings of the paper")
    assert "Of 5 findings of the paper, 1 hold and 1 fail in this sweep." in shown
    assert all(f"<dt>{verdict}</dt>" in shown for verdict in verdicts)
