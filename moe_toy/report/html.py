"""The report of one evaluated model: `report.html`, a single file that opens offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moe_toy.findings import paper
from moe_toy.findings.recommend import recommend
from moe_toy.report.headline import headline
from moe_toy.report.page import write_page
from moe_toy.report.sections import SECTIONS
from moe_toy.results import Results


def write_report(results: Results, out_dir: Path) -> Path:
    """Write `report.html` and return its path; a recommendation that is missing is made. Sections whose tables are
    absent are left out."""
    if "recommendation" not in results.summary:
        results = recommend(results)
    summary = results.summary
    return write_page(
        out_dir,
        kicker="Local routing consistency",
        title=str(summary["name"]),
        facts=_facts(summary),
        headline=headline(summary),
        sections=[section for make in SECTIONS if (section := make(results)) is not None],
        footer=paper.CREDIT,
    )


def _facts(summary: dict[str, Any]) -> str:
    facts = [
        f"{summary['target']} {summary['source']}",
        f"{len(summary['layer_ids'])} MoE layers, {summary['top_k']} of {summary['num_experts']} experts per token",
    ]
    if summary.get("total_parameters"):
        active = summary.get("active_parameters")
        facts.append(
            f"{_count(summary['total_parameters'])} parameters" + (f", {_count(active)} active" if active else "")
        )
    facts.append(_sequences(summary))
    if summary.get("text"):
        facts.append(f"text: {summary['text']['words']} (fingerprint {summary['text']['fingerprint']})")
    if summary.get("loss") is not None:
        facts.append(f"loss {summary['loss']:.3f} nats per token")
    return " · ".join(facts)


def _sequences(summary: dict[str, Any]) -> str:
    """How many, of which length; without a product where they differ in length, or domains in their number."""
    domains, longest = len(summary["domains"]), summary["sequence_length"]
    number = summary.get("num_sequences", domains * summary["samples_per_domain"])
    shortest = summary.get("shortest_sequence", longest)
    if number == domains * summary["samples_per_domain"] and shortest == longest:
        each = f"{domains} domains × " if domains > 1 else ""
        return f"{each}{summary['samples_per_domain']} sequences × {longest} tokens"
    lengths = f"{longest}" if shortest == longest else f"{shortest} to {longest}"
    return f"{number} sequences of {lengths} tokens{f' in {domains} domains' if domains > 1 else ''}"


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e9 else f"{parameters / 1e6:.1f} M"
