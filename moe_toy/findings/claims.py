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


class Verdict(StrEnum):
    HOLDS = "holds"
    FAILS = "fails"
    INCONCLUSIVE = "inconclusive"
    NOT_MEASURED = "not measured"


STYLE = {
    Verdict.HOLDS: "green",
    Verdict.FAILS: "red",
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


def check_claims(results: pd.DataFrame) -> pd.DataFrame:
    """One row per comparison of every claim that these results are about, as fields of `Finding`, and `claim_verdict`
    of the whole claim.

    `results` is that of a sweep: `arm`, `seed`, sizes, what the arms vary, and a column per metric.
    """
    import pandas as pd  # half a second

    rows = []
    for claim in yaml.safe_load(claims_about(results).read_text()):
        findings = check_claim(results, claim)
        whole = together([finding.verdict for finding in findings])
        rows += [{**asdict(finding), "claim_verdict": whole} for finding in findings]
    return pd.DataFrame(rows)


def check_claim(results: pd.DataFrame, claim: dict[str, Any]) -> list[Finding]:
    options = dict(claim)
    key, says, name = (options.pop(part) for part in ("key", "says", "test"))
    if name not in claim_tests.TESTS:
        raise UserError(f"claim {key}: no test {name!r}; choose one of {', '.join(claim_tests.TESTS)}")
    try:
        comparisons = claim_tests.TESTS[name](claim_tests.with_derived(results), **options)
    except NotMeasuredError as error:
        return [Finding(key, says, str(error), Verdict.NOT_MEASURED)]
    return [_finding(key, says, comparison) for comparison in comparisons]


def show_claims(checked: pd.DataFrame) -> None:
    """Each claim with its verdict on the screen, its comparisons below it."""
    console = Console()
    for key, rows in checked.groupby("claim", sort=False):
        whole, says = rows.claim_verdict.iloc[0], rows.says.iloc[0]
        console.print(f"[bold]{key:<3}[{STYLE[whole]}]{whole}[/]: {escape(says)}[/]", highlight=False)
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
        verdict(low, high, comparison.above, comparison.below),
        len(comparison.values),
        mean,
        low,
        high,
        comparison.effect_size(),
        comparison.claimed(),
    )


def verdict(low: float, high: float, above: float, below: float) -> Verdict:
    """Where an interval lies to what is claimed: inside, apart, or across its edge."""
    if low > above and high < below:
        return Verdict.HOLDS
    if high < above or low > below:
        return Verdict.FAILS
    return Verdict.INCONCLUSIVE


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """A claim of several comparisons holds if all do, and fails if one does."""
    if Verdict.FAILS in verdicts:
        return Verdict.FAILS
    return next((v for v in (Verdict.NOT_MEASURED, Verdict.INCONCLUSIVE) if v in verdicts), Verdict.HOLDS)
