"""What a sweep says of the claims: a sentence, their comparisons, and how many seeds each needs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

from moe_toy.findings.claims import Verdict
from moe_toy.findings.seeds import SEEDS
from moe_toy.report.page import Section, html_table, tiles

if TYPE_CHECKING:
    import pandas as pd

CLAIM_COLUMNS = {
    "claim": "claim",
    "says": "it says",
    "comparison": "here",
    "verdict": "verdict",
    "seeds": "seeds",
    "estimate": "mean",
    "ci_low": "95 % from",
    "ci_high": "to",
    "claimed": "claimed",
    "effect_size": "effect size",
}
TESTED = (
    "Each comparison with its mean over seeds and 95 % interval. It holds if the interval lies where it is claimed to "
    "be, fails if it lies outside, and stays open across the edge. One that stays open but lies within what the "
    "claim says is too small to matter, to either side of zero, shows no difference that matters. A claim holds if all "
    "its comparisons do."
)
EXPLORATORY = (
    "Thought of when the first seeds had been seen, and tested on later seeds only; not measured where there are none. "
    "They replace no verdict above."
)
PLANNED = (
    "Seeds for an interval that reaches, to either side, half of the paper's difference (or half of the smallest that "
    "matters, where that is larger or the paper has no number; of a range, half of its margin), if the spread stays as "
    "it is. Decide the number before you look at new seeds. Empty: more than 1000."
)


def claim_sections(tables: Mapping[str, pd.DataFrame]) -> list[Section]:
    """The claims, those thought of after the fact, and the seeds that they need, as far as a sweep has them."""
    sections = [Section("Claims", TESTED, _comparisons(tables["claims"]))]
    if "exploratory" in tables:
        sections.append(Section("Exploratory claims", EXPLORATORY, _comparisons(tables["exploratory"])))
    if "seeds" in tables:
        sections.append(Section("Seeds needed", PLANNED, html_table(tables["seeds"].rename(columns=SEEDS), decimals=4)))
    return sections


def headline(checked: pd.DataFrame, about: str) -> str:
    """How many claims `about` something have each verdict, as HTML."""
    found = verdicts(checked)
    counts = [
        (str(verdict), str((found == verdict).sum()), ", ".join(found.index[found == verdict]) or "none")
        for verdict in Verdict
    ]
    sentence = f"Of {len(found)} {about}, {counts[0][1]} hold and {counts[1][1]} fail in this sweep."
    return f'<div class="headline"><p class="verdict">{escape(sentence)}</p>{tiles(counts)}</div>'


def verdicts(checked: pd.DataFrame) -> pd.Series:
    """The verdict of each whole claim, by its key."""
    return checked.drop_duplicates("claim").set_index("claim").claim_verdict


def _comparisons(checked: pd.DataFrame) -> str:
    shown = checked[list(CLAIM_COLUMNS)].replace({math.inf: None, -math.inf: None})
    shown.loc[checked.claim.duplicated(), ["claim", "says"]] = ""  # once for all of its comparisons
    return html_table(shown.rename(columns=CLAIM_COLUMNS))
