import re
from dataclasses import replace

import pytest

from moe_toy.findings import paper
from moe_toy.report.compare import write_comparison
from moe_toy.report.figures import context
from moe_toy.report.html import write_report
from moe_toy.results import Results
from tests.report.make_results import results_of, synthetic_trace


def sections(path) -> list[str]:
    return re.findall(r'<section id="([^"]*)"', path.read_text())


EVERYTHING = [
    "consistency",
    "caches",
    "beside-the-paper",
    "experts",
    "load-balance",
    "strongest-tokens",
    "text",
]


def test_a_report_is_one_small_file(golden_results, tmp_path):
    path = write_report(golden_results, tmp_path / "report")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    assert path.stat().st_size < 8e6


def test_a_section_for_everything_measured(small_results, tmp_path):
    path = write_report(small_results, tmp_path)
    assert sections(path) == EVERYTHING
    assert "Tokens per second on your device" in path.read_text()


def test_caches_are_those_of_an_engine_beside_the_papers_once(small_results, tmp_path):
    text = write_report(small_results, tmp_path).read_text()
    assert "Layer by layer and token by token" in text
    assert "an engine asks for the experts of one layer after another" in text
    assert "below one token&#x27;s cycle" in text or "below one token's cycle" in text
    older = small_results.tables["cache"].query("order != 'layer'").drop(columns="order")
    summary = {name: value for name, value in small_results.summary.items() if name != "recommendation"}
    before = replace(small_results, summary=summary, tables={"srp": small_results.tables["srp"], "cache": older})
    assert "layer by layer" not in write_report(before, tmp_path).read_text()  # nor is another order passed off as it


@pytest.mark.parametrize(
    ("table", "section"), [("balance", "load-balance"), ("tokens", "strongest-tokens"), ("text", "text")]
)
def test_what_was_not_measured_is_left_out(small_results, tmp_path, table, section):
    tables = {name: rows for name, rows in small_results.tables.items() if name != table}
    path = write_report(replace(small_results, tables=tables), tmp_path)
    assert section not in sections(path)
    assert len(sections(path)) == len(EVERYTHING) - 1


def test_the_four_tables_of_analyze_are_enough(small_results, tmp_path):
    tables = {name: small_results.tables[name] for name in ("srp", "cache", "specialization", "load")}
    path = write_report(replace(small_results, tables=tables), tmp_path)
    assert len(sections(path)) == 4


def test_a_trace_without_domains_has_a_report(tmp_path):
    trace = replace(synthetic_trace(layers=1, experts=4, top_k=1, domains=1, samples=2, seq=40), domain_ids=None)
    results = results_of(replace(trace, domains=(), predicted_ids=None), "bare")
    text = write_report(results, tmp_path).read_text()
    assert "By domain" not in text
    assert "2 sequences × 40 tokens" in text


def test_a_model_that_uses_all_experts_has_a_report(tmp_path):
    results = results_of(synthetic_trace(layers=1, experts=4, top_k=4, domains=2, samples=1, seq=40), "dense")
    assert "1.000" in write_report(results, tmp_path).read_text()


def test_other_segment_lengths_are_not_put_beside_the_paper(small_results, tmp_path):
    srp, cache = small_results.tables["srp"], small_results.tables["cache"]
    tables = small_results.tables | {
        "srp": srp[srp.segment_length != 16],
        "cache": cache[cache.segment_length.isna() | (cache.segment_length != 16)],
    }
    summary = {name: value for name, value in small_results.summary.items() if name != "recommendation"}
    del tables["throughput"]
    path = write_report(replace(small_results, summary=summary, tables=tables), tmp_path)
    assert "beside-the-paper" not in " ".join(sections(path))


def test_hit_rates_of_another_cold_start_are_not_put_beside_the_paper(small_results, tmp_path):
    """The paper counts the first experts as hits; those counted as misses stood among its models, as its measure."""
    cold = small_results.summary | {"settings": {"cold": "miss"}}
    text = write_report(replace(small_results, summary=cold), tmp_path).read_text()
    assert "What consistency buys" not in text
    assert "SRP and groups G1–G4" in text
    assert "The paper counts the first ones as hits; here metrics.cold=miss." in text
    assert "here metrics.cold" not in write_report(small_results, tmp_path / "hit").read_text()


@pytest.mark.parametrize("srp", [0.1, 0.5, 0.97])
def test_a_model_beyond_those_of_the_paper_is_in_the_picture(srp):
    """A collapsed one was drawn beyond the right end of the axis."""
    low, high = context.srp_among_models(paper.numbers(), {"mine": srp}).layout.xaxis.range
    assert low < srp < high
    assert low == pytest.approx(min(srp - 0.03, 0.15))
    assert high == pytest.approx(max(srp + 0.03, 0.86))


def test_names_and_tokens_stay_text(small_results, tmp_path):
    summary = small_results.summary | {"name": "<b>bold</b>", "source": "</script>"}
    text = write_report(replace(small_results, summary=summary), tmp_path).read_text()
    assert "<h1>&lt;b&gt;bold&lt;/b&gt;</h1>" in text
    assert "</script><b>" not in text  # a token of the synthetic vocabulary


def test_names_of_domains_and_models_are_no_tags_to_plotly(tmp_path):
    trace = synthetic_trace(layers=2, experts=8, top_k=2, domains=3, samples=2, seq=64)
    hostile = "<a href='https://example.org'>&nbsp;"
    results = results_of(replace(trace, domains=(hostile, *trace.domains[1:])), hostile, token_count=2)
    report = write_report(results, tmp_path / "one")
    other = tmp_path / "other"
    for folder, name in ((other, "other"), (tmp_path / "one", hostile)):
        Results(results.summary | {"name": name}, results.tables).save(folder)
    pages = [report, write_comparison([other, tmp_path / "one"], tmp_path / "many")]
    plots = [
        plot
        for path in pages
        for plot in re.findall(
            r'<div class="plot"[^>]*><script type="application/json">(.*?)</script>', path.read_text()
        )
    ]
    shown = [plot for plot in plots if "example.org" in plot]
    assert len(shown) > 8
    for plot in shown:
        assert "\\u003ca" not in plot
        assert "&lt;a href='https://example.org'&gt;&amp;nbsp;" in plot


@pytest.mark.parametrize(
    ("active", "told"), [(1_670_000, "4.4 M parameters, 1.7 M active"), (None, "4.4 M parameters ·")]
)
def test_parameters_are_told_as_far_as_they_are_known(small_results, tmp_path, active, told):
    summary = small_results.summary | {"total_parameters": 4_430_000, "active_parameters": active}
    assert told in write_report(replace(small_results, summary=summary), tmp_path).read_text()


@pytest.mark.parametrize(
    ("counted", "words"),
    [
        ({}, "3 domains × 2 sequences × 64 tokens"),
        ({"num_sequences": 6, "shortest_sequence": 64}, "3 domains × 2 sequences × 64 tokens"),
        ({"num_sequences": 7, "shortest_sequence": 64}, "7 sequences of 64 tokens in 3 domains"),
        ({"num_sequences": 6, "shortest_sequence": 9}, "6 sequences of 9 to 64 tokens in 3 domains"),
        ({"num_sequences": 3, "shortest_sequence": 9, "domains": ["a"]}, "3 sequences of 9 to 64 tokens ·"),
    ],
)
def test_the_facts_say_what_was_measured(small_results, tmp_path, counted, words):
    """No product of numbers where sequences differ in length, or domains in their sequences."""
    results = replace(small_results, summary=small_results.summary | {"loss": 3.0} | counted)
    assert words in write_report(results, tmp_path).read_text()
