"""How many seeds a claim needs, from the spread of those at hand: to be decided before new ones are looked at."""

from __future__ import annotations

import math
from statistics import NormalDist, stdev
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from moe_toy.findings import paper
from moe_toy.findings.claims import compare, stated_claims
from moe_toy.findings.comparison import Comparison, NotMeasuredError
from moe_toy.findings.student_t import CONFIDENCE, mean_interval, quantile

MOST = 1000
"""More seeds than this are nobody's plan."""
SEEDS = {
    "claim": "claim",
    "comparison": "comparison",
    "seeds": "seeds",
    "spread": "spread",
    "half_width": "± now",
    "published": "paper",
    "aim": "± aim",
    "seeds_needed": "needed",
}
"""The columns of `plan_seeds`, and what they are called where people read them."""


def seeds_needed(spread: float, half_width: float) -> int | None:
    """The fewest seeds, at least two, whose 95 % interval of a mean is at most `half_width` to either side.

    `spread` is the standard deviation over seeds, taken to stay as it is. None: more than `MOST`.
    """
    fewest = (NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * spread / half_width) ** 2  # Student's t asks for more
    for seeds in range(max(2, math.ceil(min(fewest, MOST + 1))), MOST + 1):
        if quantile((1 + CONFIDENCE) / 2, seeds - 1) * spread <= half_width * math.sqrt(seeds):
            return seeds
    return None


def plan_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """A row per comparison of the claims of a sweep: what `SEEDS` names; empty where nothing can be aimed at.

    The interval is to reach half of the paper's difference to either side, so that it tells that difference from none.
    Half of the smallest difference that matters is aimed at where that is larger or the paper has no number, half of
    the margin where a claim is about a range. `spread` is the standard deviation of the differences within a
    seed. Comparisons of correlations, and those of a single seed, are left out.
    """
    rows = []
    for claim in stated_claims(results):
        for comparison in _compare(results, claim):
            published = _published(claim, comparison.name)
            aim = _aim(comparison, published)
            if aim is None or len(comparison.values) < 2:
                continue
            spread, (mean, _, high) = stdev(comparison.values), mean_interval(comparison.values)
            needed = seeds_needed(spread, aim)
            row = (claim["key"], comparison.name, len(comparison.values), spread, high - mean, published, aim, needed)
            rows.append(row)
    return pd.DataFrame(rows, columns=list(SEEDS)).astype({"published": float, "seeds_needed": "Int64"})


def show_seeds(plan: pd.DataFrame) -> None:
    """The plan on the screen."""
    console = Console()
    console.rule("seeds needed for an interval of half the paper's difference", align="left")
    table = Table(*SEEDS.values(), box=None, padding=(0, 1))
    table.columns[1].no_wrap = True
    for row in plan.itertuples(index=False):
        table.add_row(*map(_cell, row))
    console.print(table)


def _cell(value: object) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.4f}" if isinstance(value, float) else escape(str(value))


def _compare(results: pd.DataFrame, claim: dict[str, Any]) -> list[Comparison]:
    try:
        return compare(results, claim)
    except NotMeasuredError:
        return []


def _published(claim: dict[str, Any], name: str) -> float | None:
    """What a comparison of this name is in the paper's own table."""
    return next((float(same.values[0]) for same in _compare(paper.as_sweep(), claim) if same.name == name), None)


def _aim(comparison: Comparison, published: float | None) -> float | None:
    """Half of the difference that the interval should tell from none."""
    if comparison.correlation:
        return None
    if math.isfinite(comparison.above) and math.isfinite(comparison.below):
        return (comparison.below - comparison.above) / 4  # of a range, half of half its width
    return max(abs(published or 0.0), comparison.negligible) / 2 or None
