"""Several evaluated models side by side in one report."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe_toy.errors import UserError
from moe_toy.findings import paper
from moe_toy.findings.hit_rates import at_ratio, model_curve, order_of
from moe_toy.findings.recommend import recommend
from moe_toy.metrics.agreement import correlations, sch_with_caches, srp_with_sch
from moe_toy.report.figures import comparison, context
from moe_toy.report.page import Section, figures, html_table, tiles, write_page
from moe_toy.results import COMPARISON, SUMMARY, Results

if TYPE_CHECKING:
    import pandas as pd

HEADINGS = {
    "srp": "SRP",
    "sch@2": "SCH",
    "lru@2": "LRU",
    "lfu@2": "LFU",
    "recommended_ratio": "recommended",
    "worst_domain": "worst domain",
    "num_experts": "experts",
    "top_k": "active",
}
"""Of the ranking on the page."""
WAYS: dict[str, Callable[[Results], object]] = {
    "segments of different lengths": lambda results: results.summary["recommendation"]["segment_length"],
    "caches that are asked in different orders": lambda results: order_of(results.tables["cache"]),
    "caches of different metrics.cold": lambda results: results.summary["settings"].get("cold", "hit"),
}
"""How models can be counted differently, by what a message says of it; `order` is missing in older folders."""


def write_comparison(folders: Sequence[Path], out_dir: Path) -> Path:
    """Read evaluated folders and write `report.html`, `summary.json` and the tables of `compare`. Returns the path of
    the report."""
    folders = list(dict.fromkeys(folders))
    if (out_dir / SUMMARY).exists() and Results.load(out_dir).summary.get("target") != COMPARISON:
        raise UserError(f"out_dir={out_dir} holds the evaluation of a model; choose another folder for a comparison")
    models = load_models(folders)
    results = compare(models, folders)
    results.save(out_dir)
    return write_comparison_page(results, models, out_dir)


def load_models(folders: Sequence[Path]) -> dict[str, Results]:
    """Evaluated folders by the names of their models; models of one name are told apart by their folders."""
    loaded = {folder: Results.load_model(folder) for folder in folders}
    if len(loaded) < 2:
        raise UserError(f"a comparison needs at least two evaluated folders, not {len(loaded)}")
    names = [str(results.summary["name"]) for results in loaded.values()]
    models = {}
    for (folder, results), name in zip(loaded.items(), names, strict=True):
        unique = name if names.count(name) == 1 else f"{name} ({folder})"
        models[unique] = results if "recommendation" in results.summary else recommend(results)
    _check_alike(models)
    return models


def compare(models: Mapping[str, Results], folders: Sequence[Path]) -> Results:
    """Tables `models` (one row each, most consistent first), `srp_sch`, `sch_caches` (the correlated pairs) and
    `correlations`."""
    length = next(results.summary["recommendation"]["segment_length"] for results in models.values())
    ranking = ranked(models)
    measured = {name: models[name].tables for name in ranking.model}
    pairs, real = srp_with_sch(measured), sch_with_caches(measured)
    summary = {
        "name": f"{len(models)} models compared",
        "target": COMPARISON,
        "source": [str(folder) for folder in folders],
        "segment_length": length,
        "models": list(ranking.model),
    }
    found = correlations(pairs, real)
    return Results(summary, {"models": ranking, "srp_sch": pairs, "sch_caches": real, "correlations": found})


def write_comparison_page(results: Results, models: Mapping[str, Results], out_dir: Path) -> Path:
    """Write `report.html` of what `compare` made of `models`, and return its path."""
    tables, length = results.tables, results.summary["segment_length"]
    models = {name: models[name] for name in results.summary["models"]}
    return write_page(
        out_dir,
        kicker="Local routing consistency",
        title=results.summary["name"],
        facts=" · ".join(models),
        headline=_headline(tables["models"], tables["correlations"], length),
        sections=_sections(models, tables, length),
        footer=paper.CREDIT,
    )


def _check_alike(models: Mapping[str, Results]) -> None:
    """Raise `UserError` where numbers of two models were counted in different ways."""
    for different, way in WAYS.items():
        ways = {name: way(results) for name, results in models.items()}
        if len(set(ways.values())) > 1:
            listed = ", ".join(f"{name}: {value}" for name, value in ways.items())
            raise UserError(f"models are scored over {different} ({listed}); evaluate them alike")


def ranked(models: Mapping[str, Results]) -> pd.DataFrame:
    """One row per model, most consistent first."""
    import pandas as pd  # half a second

    rows: list[dict[str, Any]] = []
    for name, results in models.items():
        summary, found = results.summary, results.summary["recommendation"]
        curves = {"sch": found["segment_length"], "lru": None, "lfu": None}
        rates = {
            f"{policy}@{paper.CACHE_RATIO:g}": float(
                at_ratio(model_curve(results.tables["cache"], policy, length), paper.CACHE_RATIO).hit_rate
            )
            for policy, length in curves.items()
        }
        rows.append(
            {
                "model": name,
                "group": found["group"],
                "srp": found["srp"],
                "floor": found["srp_floor"],
                "unshuffled": found.get("srp_unshuffled"),
                "shuffled": found["srp_shuffled"],
                **rates,
                "recommended_ratio": found["cache"]["cache_ratio"] if found["cache"] else None,
                "worst_domain": found["worst_domain"],
                "loss": summary.get("loss"),
                "layers": len(summary["layer_ids"]),
                "num_experts": summary["num_experts"],
                "top_k": summary["top_k"],
            }
        )
    return pd.DataFrame(rows).sort_values("srp", ascending=False, ignore_index=True)


def _headline(ranking: pd.DataFrame, found: pd.DataFrame, length: int) -> str:
    best, last = ranking.iloc[0], ranking.iloc[-1]
    at = found[(found.segment_length == length) & ((found.cache_ratio == 1.5) | (found.y == "lru"))]
    r = at.set_index("y").r
    shown = [
        ("Most consistent", str(best.model), f"SRP {best.srp:.3f} over {length} tokens"),
        ("Least consistent", str(last.model), f"SRP {last.srp:.3f}"),
    ]
    for y, name, rows in (
        ("sch", "SRP and SCH at ratio 1.5", "models, layers and domains"),
        ("lru", "SCH and LRU", "models, domains and cache sizes"),
    ):
        if not math.isnan(r.get(y, math.nan)):
            shown.append((f"r of {name}", f"{r[y]:.3f}", f"Pearson, over {rows}"))
    verdict = f"Of {len(ranking)} models, nearby tokens share their experts most in “{best.model}”."
    return f'<div class="headline"><p class="verdict">{escape(verdict)}</p>{tiles(shown)}</div>'


def _sections(models: Mapping[str, Results], tables: Mapping[str, pd.DataFrame], length: int) -> list[Section]:
    ranking, found = tables["models"], tables["correlations"]
    numbers = paper.numbers()
    consistency = {"By segment length": comparison.srp_by_length(models)}
    if ranking.loss.notna().any():
        toys = numbers[numbers.study == "toy"]
        caption = "What it costs | losses compare where tokenizers are equal"
        consistency[caption] = comparison.srp_and_loss(ranking, toys, length)
    if all(results.tables["srp"].domain.notna().any() for results in models.values()):
        consistency["By domain | percent above or below the model's own SRP"] = comparison.srp_by_domain(models, length)
    sections = [
        Section(
            "Ranking",
            f"Most consistent first, by SRP over {length} tokens. Hit rates are of a cache of twice the active "
            "experts. SRP depends on how many of how many experts are active: see the floor. Unshuffled and shuffled "
            "are a few sequences of each domain.",
            html_table(ranking.rename(columns=HEADINGS)),
        ),
        Section("Consistency", "SRP of each model, by length of segment and by domain.", figures(consistency)),
        Section(
            "Caches",
            "How often a token finds its experts in a cache, and whether SRP foretells it. A dot is a model, layer and "
            "domain. SCH is correlated with real caches over models, domains and all cache sizes, as in the paper; "
            "that adds a common trend.",
            figures(
                {
                    "Hit rate by cache size | one cache shared by all layers": comparison.hit_rates(models, length),
                    "SRP and SCH": comparison.srp_and_sch(tables["srp_sch"], found, length),
                    "SCH and real caches": comparison.sch_and_caches(found),
                }
            ),
        ),
    ]
    if length == paper.SEGMENT_LENGTH:
        measured = dict(zip(ranking.model, ranking.srp, strict=True))
        shown = {"SRP and groups G1–G4": context.srp_among_models(numbers, measured)}
        sections.append(Section("Beside the paper", paper.READING, figures(shown), paper.PRECISION))
    return sections
