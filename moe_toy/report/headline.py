"""The answer in one sentence and a few large numbers."""

from __future__ import annotations

from html import escape
from typing import Any

from moe_toy.report.page import tiles

VERDICTS = {
    "G1": "Nearby tokens mostly share their experts: this model suits expert offloading well",
    "G2": "Nearby tokens often share their experts: this model suits expert offloading",
    "G3": "Nearby tokens share some of their experts: expert offloading will cost this model many loads",
    "G4": "Nearby tokens share few of their experts: this model does not suit expert offloading",
    None: "Segments differ from the paper's 16 tokens, so this model falls in none of its groups",
}
POPULAR = (
    "Nearby tokens share experts hardly more than shuffled ones do: what a cache gains here comes from popular "
    "experts, not from locality"
)
HARDLY = 0.05
"""With an SRP this little above that of shuffled tokens, the group says nothing about locality."""


def headline(summary: dict[str, Any]) -> str:
    """HTML of the box at the top, from a summary with a recommendation."""
    found = summary["recommendation"]
    length, cache = found["segment_length"], found["cache"]
    group = f"group {found['group']}, " if found["group"] else ""
    shuffled = ""
    if found["srp_shuffled"] is not None:
        of_few = f"{_unshuffled(found):.3f}, and {found['srp_shuffled']:.3f} when shuffled"
        shuffled = f"; a few sequences of each domain: {of_few}"
    shown = [
        (
            f"Consistency (SRP over {length} tokens)",
            f"{found['srp']:.3f}",
            f"{group}on a scale from {found['srp_floor']:.3f} to 1{shuffled}",
        )
    ]
    if cache:
        rates = cache["hit_rate"]
        ratio = f"{cache['cache_ratio']:.2g}× active"
        shown += [
            ("Recommended cache", ratio, f"{cache['capacity']} of {cache['num_items']} experts, all layers together"),
            ("Hit rate there", f"{100 * rates['lru']:.0f} %", f"LRU; {100 * rates['sch']:.0f} % with look-ahead (SCH)"),
        ]
    if found["worst_domain"] is not None:
        change = 100 * (found["worst_domain_srp"] / found["srp"] - 1)
        shown.append(("Worst domain", found["worst_domain"], f"SRP {found['worst_domain_srp']:.3f}, {change:+.0f} %"))
    return (
        f'<div class="headline"><p class="verdict">{escape(verdict(found))}</p>'
        f'{tiles(shown)}<p class="note">{escape(reason(found))}</p></div>'
    )


def verdict(found: dict[str, Any]) -> str:
    sentence = VERDICTS[found["group"]]
    if found["srp_shuffled"] is not None and _unshuffled(found) - found["srp_shuffled"] < HARDLY:
        sentence = POPULAR
    cache = found["cache"]
    if cache is None:
        return f"{sentence}. No cache does better than chance."
    return (
        f"{sentence}. A cache of {cache['cache_ratio']:.2g} times the active experts "
        f"finds {100 * cache['hit_rate']['lru']:.0f} % of them."
    )


def _unshuffled(found: dict[str, Any]) -> float:
    """SRP of the sequences that are shuffled. Domains count equally there, so that the whole may score less even than
    these when shuffled; older summaries do not have it."""
    return found.get("srp_unshuffled", found["srp"])


def reason(found: dict[str, Any]) -> str:
    """Where the recommendation comes from, beside the paper's rule."""
    cache = found["cache"]
    if cache is None:
        return "At no size do SCH and LRU both rise above the hit rate of random experts."
    knees = ", ".join(f"{policy.upper()} at {knee['cache_ratio']:.2g}×" for policy, knee in cache["knee"].items())
    return (
        f"The smallest cache at which both curves have reached {100 * cache['share']:.0f} % of their greatest gain "
        f"over random experts ({knees}). The paper's rule of {cache['paper_ratio']:g}× buys "
        f"{100 * cache['knee']['lru']['hit_rate_at_paper_ratio']:.0f} % with LRU."
    )
