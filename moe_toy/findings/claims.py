"""Findings, the paper's and ours, as tests over the seeds of a sweep: each holds, fails, stays open or lacks data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from moe_toy.errors import UserError
from moe_toy.findings import claim_tests
from moe_toy.findings.comparison import Comparison, NotMeasuredError

if TYPE_CHECKING:
    import pandas as pd

PAPER = Path(__file__).parent / "claims.yaml"
LOCALITY = Path(__file__).parent / "locality_claims.yaml"
STATEMENT = ("key", "says", "test", "exploratory", "seeds_after")
"""The keys of a claim that are not arguments of its test."""


class Verdict(StrEnum):
    HOLDS = "holds"
    FAILS = "fails"
    NO_DIFFERENCE = "no difference that matters"
    INCONCLUSIVE = "inconclusive"
    NOT_MEASURED = "not measured"


STYLE = {
    Verdict.HOLDS: "green",
    Verdict.FAILS: "red",
    Verdict.NO_DIFFERENCE: "cyan",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.NOT_MEASURED: "default",
}


@dataclass(frozen=True)
class Finding:
    """One comparison of a claim, a row of the table."""

    claim: str
    says: str
    comparison: str
    verdict: Verdict
    seeds: int = 0
    estimate: float = math.nan
    """Mean over seeds, in the units of the metric, or a correlation."""
    ci_low: float = math.nan
    ci_high: float = math.nan
    """Bounds of its 95 % interval."""
    effect_size: float = math.nan
    """Cohen's d of paired differences: mean over standard deviation, from zero or from the bound that is claimed."""
    claimed: str = ""
    """Where the estimate should lie."""


def claims_about(results: pd.DataFrame) -> Path:
    """The file of claims that a sweep is about: those on locality where it varies `locality`, else the paper's."""
    return LOCALITY if "locality" in results else PAPER


def stated_claims(results: pd.DataFrame, exploratory: bool = False) -> list[dict[str, Any]]:
    """The claims that a sweep is judged by; with `exploratory` those that were thought of when its first seeds had been
    seen."""
    claims = yaml.safe_load(claims_about(results).read_text())
    return [claim for claim in claims if claim.get("exploratory", False) == exploratory]


def check_claims(results: pd.DataFrame, exploratory: bool = False) -> pd.DataFrame:
    """One row per comparison of every claim that these results are about, as fields of `Finding`, and `claim_verdict`
    of the whole claim.

    `results` is that of a sweep: `arm`, `seed`, sizes, what the arms vary, and a column per metric. `exploratory`: as
    in `stated_claims`.
    """
    import pandas as pd  # half a second

    rows = []
    for claim in stated_claims(results, exploratory):
        findings = check_claim(results, claim)
        whole = together([finding.verdict for finding in findings])
        rows += [{**asdict(finding), "claim_verdict": whole} for finding in findings]
    return pd.DataFrame(rows)


def check_claim(results: pd.DataFrame, claim: dict[str, Any]) -> list[Finding]:
    """A finding for each comparison of a claim, or one that says what is missing."""
    key, says = claim["key"], claim["says"]
    try:
        return [_finding(key, says, comparison) for comparison in compare(results, claim)]
    except NotMeasuredError as error:
        return [Finding(key, says, str(error), Verdict.NOT_MEASURED)]


def compare(results: pd.DataFrame, claim: dict[str, Any]) -> list[Comparison]:
    """What the test of a claim makes of these results; raises `NotMeasuredError` where they lack what it is about.

    A claim with `seeds_after` is tested on seeds of a greater number only.
    """
    options = {key: value for key, value in claim.items() if key not in STATEMENT}
    if claim["test"] not in claim_tests.TESTS:
        raise UserError(
            f"claim {claim['key']}: no test {claim['test']!r}; choose one of {', '.join(claim_tests.TESTS)}"
        )
    if (seen := claim.get("seeds_after")) is not None:
        results = results[results.seed > seen]
        if results.empty:
            raise NotMeasuredError(f"no seed after {seen}")
    return claim_tests.TESTS[claim["test"]](claim_tests.with_derived(results), **options)


def show_claims(checked: pd.DataFrame, title: str = "") -> None:
    """Each claim with its verdict on the screen, its comparisons below it, all of them below `title`."""
    console = Console()
    if title:
        console.rule(escape(title), align="left")
    for key, rows in checked.groupby("claim", sort=False):
        whole, says = rows.claim_verdict.iloc[0], rows.says.iloc[0]
        console.print(f"[bold]{key:<3} [{STYLE[whole]}]{whole}[/]: {escape(says)}[/]", highlight=False)
        table = Table(box=None, show_header=False, padding=(0, 1))
        for row in rows.itertuples():
            numbers = (f"{row.estimate:.3f}", f"({row.ci_low:.3f} to {row.ci_high:.3f})", row.claimed, row.verdict)
            table.add_row("", escape(row.comparison), *(numbers if row.verdict != Verdict.NOT_MEASURED else ()))
        console.print(table)


def _finding(key: str, says: str, comparison: Comparison) -> Finding:
    mean, low, high = comparison.interval()
    return Finding(
        key,
        says,
        comparison.name,
        verdict(low, high, comparison.above, comparison.below, comparison.negligible),
        len(comparison.values),
        mean,
        low,
        high,
        comparison.effect_size(),
        comparison.claimed(),
    )


def verdict(low: float, high: float, above: float, below: float, negligible: float = 0.0) -> Verdict:
    """Where an interval lies to what is claimed: inside, apart, or across its edge.

    Across the edge, an interval within `negligible` of zero says that there is no difference that matters: an
    equivalence test by the same 95 % interval as all verdicts, stricter than the 90 % of two one-sided tests at 5 %.
    A direction that holds or fails keeps its verdict, however small the difference.
    """
    if low > above and high < below:
        return Verdict.HOLDS
    if high < above or low > below:
        return Verdict.FAILS
    if -negligible < low and high < negligible:
        return Verdict.NO_DIFFERENCE
    return Verdict.INCONCLUSIVE


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """A claim of several comparisons holds if all do, and fails if one does; it has a verdict that is neither only if
    all its comparisons have that one."""
    if Verdict.FAILS in verdicts:
        return Verdict.FAILS
    if Verdict.NOT_MEASURED in verdicts:
        return Verdict.NOT_MEASURED
    return verdicts[0] if len(set(verdicts)) == 1 else Verdict.INCONCLUSIVE
