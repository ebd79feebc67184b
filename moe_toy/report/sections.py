"""The sections of the report of one model, each from the tables that it needs; None where they are absent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moe_toy.findings import paper
from moe_toy.findings.hit_rates import at_ratio, model_curve, order_of
from moe_toy.report.expert_lists import expert_lists
from moe_toy.report.figures import balance, caches, chance, consistency, context, experts
from moe_toy.report.offload import measured_section
from moe_toy.report.page import Section, data_block, figures
from moe_toy.report.passages import passages, strongest_tokens
from moe_toy.results import Results

NULLS = "Shuffled models are scored on a few sequences of each domain."
ORDER = (
    "Hit rates here are what a real cache gets: an engine asks for the experts of one layer after another, and every "
    "first request is a miss. The paper asks for the experts of all layers of a token before any is loaded and counts "
    "the first ones as hits, which flatters small caches; both are drawn once, side by side."
)


def consistency_section(results: Results) -> Section:
    summary, srp = results.summary, results.tables["srp"]
    found = summary["recommendation"]
    shown = {"By segment length": chance.srp_by_length(srp, results.tables.get("nulls"), found["srp_floor"])}
    if "nulls" in results.tables:
        shown["What it is made of | how much balance, domain, topic of the text and order of tokens add"] = (
            chance.parts_of_score(results.tables["nulls"], "srp", "segment_length", "segment length (tokens)")
        )
    if "positions" in results.tables:
        shown["By position | where in the sequence the segment lies"] = consistency.srp_by_position(
            results.tables["positions"]
        )
    shown["By layer"] = consistency.srp_by_layer(srp, summary["layer_ids"], found["srp_floor"])
    if srp.domain.notna().any():
        length = found["segment_length"]
        shown["By domain"] = consistency.srp_by_domain(srp, length)
        if "loss" in results.tables:
            shown["Consistency and difficulty | one dot per domain"] = consistency.srp_and_difficulty(
                srp, results.tables["loss"], length
            )
        shown["By layer and domain"] = consistency.srp_by_layer_and_domain(srp, summary["layer_ids"], length)
    return Section(
        "Consistency",
        "SRP asks how well one fixed set of experts could serve all tokens of a segment: 1 if routing stands still, "
        "2k/(E+k) if it is perfectly even. Higher means that an expert, once loaded, is used again soon.",
        figures(shown),
        " ".join([*summary.get("notes", ()), *([NULLS] if "nulls" in results.tables else ())]),
    )


def caches_section(results: Results) -> Section:
    summary, cache = results.summary, results.tables["cache"]
    found = summary["recommendation"]
    ratio = found["cache"]["cache_ratio"] if found["cache"] else paper.CACHE_RATIO
    marks = {f"recommended, {ratio:.2g}×": ratio} if found["cache"] else {}
    marks |= {f"the paper's rule, {paper.CACHE_RATIO:g}×": paper.CACHE_RATIO}
    length = found["segment_length"]
    shown = {
        "Hit rate by cache size | one cache shared by all layers, mean over domains": caches.hit_rate_curves(
            cache, length, marks
        ),
        "Miss-ratio curve": caches.miss_ratio_curves(cache, length),
    }
    if order_of(cache) == "layer":
        shown["Layer by layer and token by token | what an engine gets, and the paper's measure"] = (
            caches.hit_rate_by_order(cache, length)
        )
    if "nulls" in results.tables:
        nulls = results.tables["nulls"]
        nulls = nulls[(nulls.metric == "sch") & (nulls.segment_length == length)]
        if len(nulls):
            caption = "What SCH is made of | how much balance, domain, topic and order of tokens add"
            shown[caption] = chance.parts_of_score(nulls, "sch", "cache_ratio", "cache ratio")
    if cache.domain.notna().any():
        shown["By domain"] = caches.hit_rate_by_domain(cache, length, ratio)
    note = ORDER if order_of(cache) == "layer" else ""
    if (cold := _cold(summary)) != "hit":
        note += f" The paper counts the first ones as hits; here metrics.cold={cold}."
    if found["cache"] and found["cache"].get("lru_below_cycle") is not None:
        note += (
            f" Warning: below one token's cycle, {found['cache']['cycle']} experts (a cache ratio of 1), LRU evicts "
            f"what comes next: there it finds at most {100 * found['cache']['lru_below_cycle']:.1f} %."
        )
    if "throughput" in results.tables:
        device = found["throughput"]
        shown["Tokens per second on your device"] = caches.tokens_per_second(
            results.tables["throughput"], device["compute_ms"]
        )
        note += f" Throughput assumes: {'; '.join(device['assumptions'])}."
    return Section(
        "Caches",
        f"How often a token finds its experts in a cache. SCH looks {length} tokens ahead and evicts what is used "
        "least there; LRU and LFU look back; Belady evicts what is needed last. A cache ratio of 1 holds as many "
        "experts as a token activates.",
        figures(shown),
        note.strip(),
    )


def context_section(results: Results) -> Section | None:
    summary, found = results.summary, results.summary["recommendation"]
    if found["segment_length"] != paper.SEGMENT_LENGTH:
        return None
    import pandas as pd  # half a second

    numbers = paper.numbers()
    shown = {"SRP and groups G1–G4": context.srp_among_models(numbers, {summary["name"]: found["srp"]})}
    if _cold(summary) == "hit":
        sch = at_ratio(model_curve(results.tables["cache"], "sch", paper.SEGMENT_LENGTH, "token"), 1.5)
        measured = pd.DataFrame({"model": [summary["name"]], "srp_16": [found["srp"]], "sch_1.5": [sch.hit_rate]})
        shown["What consistency buys"] = context.sch_and_srp(numbers, measured)
    return Section("Beside the paper", paper.READING, figures(shown), paper.PRECISION)


def _cold(summary: dict[str, Any]) -> str:
    """How first requests count where experts are asked for token by token; the paper's way where it is not said."""
    return summary["settings"].get("cold", "hit")


def experts_section(results: Results) -> Section | None:
    summary, tables = results.summary, results.tables
    found, layer_ids = summary["recommendation"], summary["layer_ids"]
    length = found["segment_length"]
    shown = {}
    if "load" in tables and tables["load"].domain.notna().any():
        shown["Domains and experts | who uses whom, relative to even use"] = experts.activation_by_domain(
            tables["load"], layer_ids
        )
    if "specialization" in tables and tables["specialization"].value.notna().any():
        shown["Specialization and consistency | one dot per expert; r is Pearson's"] = experts.srp_and_specialization(
            tables["srp"], tables["specialization"], layer_ids, length
        )
    shown["Busy experts | SRP of an expert cannot lie below the dotted curve"] = experts.srp_and_activation(
        tables["srp"], layer_ids, length
    )
    listed = expert_lists(tables["experts"], layer_ids) if "experts" in tables else ("", "")
    return Section(
        "Experts",
        f"{listed[0]}Domain specialization is the spread, over domains, of how often an expert is active; "
        "vocabulary specialization is how firmly it owns the tokens that it leads.",
        figures(shown) + listed[1],
    )


def balance_section(results: Results) -> Section | None:
    if "balance" not in results.tables:
        return None
    table = results.tables["balance"]
    shown = {"By layer": balance.imbalance_by_layer(table, results.summary["layer_ids"])}
    if table.domain.notna().any():
        shown["By domain"] = balance.imbalance_by_domain(table)
    everywhere = table[(table.scope == "corpus") & table.domain.isna()]
    experts_in_all = len(results.summary["layer_ids"]) * results.summary["num_experts"]
    return Section(
        "Load balance",
        "Standard deviation of expert load over its mean: 0 is even. Even over everything is what training asks for; "
        "uneven within a segment is what a cache lives on. Both can be had at once.",
        figures(shown),
        f"{int(everywhere.dead_experts.sum())} of {experts_in_all} experts were never chosen.",
    )


def tokens_section(results: Results) -> Section | None:
    if "tokens" not in results.tables or results.tables["tokens"].empty:
        return None
    summary = results.summary
    data = strongest_tokens(results.tables["tokens"], summary["layer_ids"], summary["num_experts"])
    return Section(
        "Strongest tokens",
        "The tokens that each expert owns most firmly: of all occurrences, it leads the largest share. Faint ones are "
        "owned less firmly.",
        data_block("strongest", data),
    )


def text_section(results: Results) -> Section | None:
    if "text" not in results.tables or results.tables["text"].empty:
        return None
    return Section(
        "Text",
        "Every token in the colour of the expert that came first for it. Long runs of one colour are local routing "
        "consistency that you can see.",
        data_block("reader", passages(results.tables["text"], results.summary["layer_ids"])),
    )


SECTIONS: tuple[Callable[[Results], Section | None], ...] = (
    consistency_section,
    caches_section,
    measured_section,
    context_section,
    experts_section,
    balance_section,
    tokens_section,
    text_section,
)
