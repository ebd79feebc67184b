"""The report of a sweep: which claims hold, and its arms beside each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from moe_toy.findings import paper
from moe_toy.findings.claims import PAPER, check_claims, claims_about
from moe_toy.findings.seeds import plan_seeds
from moe_toy.report.claims import claim_sections, headline, verdicts
from moe_toy.report.figures import context, locality, sweep
from moe_toy.report.locality import locality_points
from moe_toy.report.page import Section, figures, html_table, write_page
from moe_toy.report.sweep_files import read_metrics, read_sweep
from moe_toy.results import Results

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

SCH = "cache/sch@16/ratio_1.5"
NOT_LOGGED = "<p>Not shown for want of curves that no finished arm logged: {}.</p>"
LOCALITY = "Locality | What a cache of twice the active experts still misses, layer after layer, and what that costs."
CURVES = {
    "val/loss": "loss (nats per token)",
    "consistency/srp@16": "SRP over 16 tokens",
    "load/cv": "global imbalance (CV)",
    "load/cv@16": "local imbalance (CV within 16 tokens)",
    "load/max_violation": "MaxVio",
    "specialization/domain": "domain specialization",
    "router/saturation": "saturation",
}
SHOWN = {
    "arm": "arm",
    "seeds": "seeds",
    "total_parameters": "parameters (M)",
    "active_parameters": "active (M)",
    "flops_per_token": "FLOPs per token (M)",
    "compute": "compute / first arm",
    "val/loss": "loss",
    "consistency/srp@16": "SRP@16",
    "load/cv": "load CV",
    "load/max_violation": "MaxVio",
}


def write_sweep_report(directory: Path, out_dir: Path) -> pd.DataFrame:
    """Write `report.html`, `summary.json` and the tables to `out_dir`; returns the claims."""
    results = judge_sweep(directory)
    results.save(out_dir)
    write_sweep_page(results, directory, out_dir)
    return results.tables["claims"]


def judge_sweep(directory: Path) -> Results:
    """Check the claims over a sweep. Its tables: `arms`, `claims`, `exploratory` (claims thought of after the fact) and
    `seeds` (how many each claim needs) where there are any, of a sweep over locality `locality`. The verdicts stand in
    the summary."""
    results = read_sweep(directory)
    checked, exploratory = check_claims(results), check_claims(results, exploratory=True)
    summary = {
        "name": directory.name,
        "target": "sweep",
        "source": str(directory),
        "seeds": sorted(int(seed) for seed in results.seed.unique()),
        "arms": list(results.arm.unique()),
        "claims": {claim: str(verdict) for claim, verdict in verdicts(checked).items()},
    }
    found = {"exploratory": exploratory, "seeds": plan_seeds(results)}
    found = {name: table for name, table in found.items() if not table.empty}
    if "exploratory" in found:
        summary["exploratory"] = {claim: str(verdict) for claim, verdict in verdicts(exploratory).items()}
    if claims_about(results) != PAPER:
        found["locality"] = locality_points(results)
    return Results(summary, {"arms": _arms(results), "claims": checked} | found)


def write_sweep_page(judged: Results, directory: Path, out_dir: Path) -> Path:
    """Write `report.html` of what `judge_sweep` made of the sweep in `directory`, and return its path."""
    results, checked = read_sweep(directory), judged.tables["claims"]
    return write_page(
        out_dir,
        kicker="Sweep",
        title=directory.name,
        facts=f"{results.arm.nunique()} arms × {results.seed.nunique()} seeds, {len(results)} runs finished",
        headline=headline(
            checked, "findings of the paper" if claims_about(results) == PAPER else "claims about locality"
        ),
        sections=[*claim_sections(judged.tables), *_locality(judged, results), *_measured(results, directory)],
        footer="Figures of the paper are from Liang et al. 2025, arXiv 2505.16056, read from its plots.",
    )


def _locality(judged: Results, results: pd.DataFrame) -> list[Section]:
    """Of a sweep that is about it: the figure, and its points in numbers."""
    if "locality" not in judged.tables:
        return []
    caption = "Bits per byte over misses | dots: means over seeds; lines: what no other arm of a scheme beats in both"
    axes = [locality.BITS, locality.HIT_RATE]
    drawn = _section(LOCALITY, {caption: (axes, lambda: locality.bits_and_misses(results))}, results)
    return [replace(drawn, body=drawn.body + html_table(judged.tables["locality"]))]


def _measured(results: pd.DataFrame, directory: Path) -> list[Section]:
    """What the arms logged, beside each other; a figure whose curves no arm logged gives way to a sentence."""
    numbers = paper.numbers()
    published = numbers[numbers.study == "toy"].set_index("model").srp_16.rename(paper.ARM_OF_MODEL).to_dict()
    sch = results.rename(columns={sweep.SRP: "srp_16", SCH: "sch_1.5"}).assign(model=results.arm)
    local, everywhere = "local imbalance (CV within 16 tokens)", "global imbalance (CV over everything)"
    kinds = [f"{sweep.SPECIALIZATION}/{kind}" for kind in sweep.KINDS]
    correlated = next((key for key in kinds if key in results), kinds[0])
    shown = {
        "Consistency | How well one fixed set of experts could serve 16 tokens.": {
            "SRP by arm": ([sweep.SRP], lambda: sweep.srp_by_arm(results, published)),
            "What it buys | one star per run": ([sweep.SRP, SCH], lambda: context.sch_and_srp(numbers, sch)),
        },
        "Balance | What SRP goes with: even use over all text, or within each passage?": {
            "Local": ([sweep.SRP, sweep.LOCAL], lambda: sweep.srp_and_imbalance(results, sweep.LOCAL, local)),
            "Global": ([sweep.SRP, sweep.GLOBAL], lambda: sweep.srp_and_imbalance(results, sweep.GLOBAL, everywhere)),
            "Loss, balance and consistency | ringed: no arm is better in all three": (
                [sweep.SRP, sweep.LOSS, sweep.MAX_VIOLATION],
                lambda: sweep.loss_balance_and_srp(results),
            ),
        },
        "Specialization | Over experts: does serving few domains, or few tokens, go with being used in runs?": {
            "By arm": ([correlated], lambda: sweep.srp_and_specialization(results)),
        },
    }
    lead = "Means over seeds. Equal text for all; active parameters and FLOPs may differ."
    arms = Section("Arms", lead, html_table(_arms(results)))
    histories = _histories(results, directory)
    keys = {key for runs in histories.values() for run in runs for key in run}
    logged = {key: title for key, title in CURVES.items() if key in keys}
    first = sweep.SRP if sweep.SRP in logged else next(iter(logged), "")
    drawn = NOT_LOGGED.format("any")
    if logged:
        drawn = figures({"By optimiser step": sweep.curves(histories, logged, first)})
    training = Section("Training", "Mean over seeds. A click on a name hides its line.", drawn)
    return [arms, *(_section(heading, wanted, results) for heading, wanted in shown.items()), training]


def _section(
    heading: str, wanted: Mapping[str, tuple[list[str], Callable[[], go.Figure]]], results: pd.DataFrame
) -> Section:
    """The figures whose curves are in the table, and which curves the others lack."""
    title, _, lead = heading.partition(" | ")
    missing = sorted({key for keys, _ in wanted.values() for key in keys if key not in results})
    drawn = {caption: draw() for caption, (keys, draw) in wanted.items() if not set(keys) & set(missing)}
    said = NOT_LOGGED.format(escape(", ".join(missing))) if missing else ""
    return Section(title, lead, (figures(drawn) if drawn else "") + said)


def _arms(results: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, costs in millions."""
    arms = results.groupby("arm", sort=False)
    means = arms[[key for key in SHOWN if key in results and key != "arm"]].mean()
    means["compute"] = means.flops_per_token / means.flops_per_token.iloc[0]
    for key in ("total_parameters", "active_parameters", "flops_per_token"):
        means[key] /= 1e6
    table = means.join(arms.seed.nunique().rename("seeds")).reset_index()
    return table[[key for key in SHOWN if key in table]].rename(columns=SHOWN)


def _histories(results: pd.DataFrame, directory: Path) -> dict[str, list[pd.DataFrame]]:
    histories: dict[str, list[pd.DataFrame]] = {}
    for arm, run in zip(results.arm, results.run_dir, strict=True):
        if (metrics := read_metrics(directory / run)) is not None:
            histories.setdefault(arm, []).append(metrics.filter(items=["step", *CURVES]))
    return histories
