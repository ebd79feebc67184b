"""What a sweep over locality shows beyond others: bits per byte over misses."""

import runpy

import pandas as pd
import pytest

from moe_toy.report import sweep as report
from moe_toy.report.figures import locality as figures
from moe_toy.report.locality import locality_points
from moe_toy.results import Results
from tests.findings.test_locality_claims import table
from tests.paths import ROOT


def rows(**hit_rates_and_bits: tuple[float, float]) -> pd.DataFrame:
    """Two seeds of each arm, which lie to both sides of its values."""
    return pd.DataFrame(
        [
            {"arm": arm, "locality": arm.rstrip("123").replace("_", "/"), "seed": seed} | values
            for arm, (hit_rate, bits) in hit_rates_and_bits.items()
            for seed, values in enumerate(
                {figures.HIT_RATE: hit_rate + side, figures.BITS: bits - side} for side in (-0.01, 0.01)
            )
        ]
    )


def test_a_scheme_is_a_line_along_its_best_arms_at_all_strengths():
    arms = {"none1": (0.4, 2.0), "none2": (0.5, 2.1), "contrast1": (0.6, 2.05), "contrast_weak1": (0.7, 2.2)}
    figure = figures.bits_and_misses(rows(**arms, contrast_strong1=(0.55, 2.3)))
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    dots = [trace for trace in figure.data if trace.mode == "markers"]
    assert [trace.name for trace in dots] == ["none", "contrast"]
    assert list(dots[1].text) == ["contrast1", "contrast_weak1", "contrast_strong1"]
    assert list(lines[0].x) == pytest.approx([0.5, 0.6])
    assert list(lines[1].x) == pytest.approx([0.3, 0.4])  # not where another arm misses less at fewer bits
    assert list(lines[1].y) == pytest.approx([2.2, 2.05])


def test_arms_of_before_a_key_was_varied_are_not_left_out():
    """A later command may vary more: the column is empty for arms that did not."""
    earlier = rows(none1=(0.4, 2.0), contrast1=(0.6, 2.1)).assign(**{"balance.coefficient": None})
    later = rows(none2=(0.5, 2.2)).assign(locality=None, **{"balance.coefficient": "0.1"})
    results = pd.concat([earlier, later], ignore_index=True)
    points = locality_points(results)
    assert points["LRU@2"].tolist() == pytest.approx([0.4, 0.6, 0.5])
    assert points.seeds.tolist() == [2, 2, 2]
    dots = {trace.name: list(trace.text) for trace in figures.bits_and_misses(results).data if trace.mode == "markers"}
    assert dots == {"none": ["none1"], "contrast": ["contrast1"], "not varied": ["none2"]}


def test_there_is_a_line_for_every_scheme_and_a_dot_over_seeds_that_have_both():
    """The thirteenth scheme was left out, as there were twelve looks; each mean was over the seeds that had it."""
    schemes = {f"scheme{letter}": (0.5, 2.0) for letter in "abcdefghijklm"}
    results = rows(**schemes)
    dots = [trace for trace in figures.bits_and_misses(results).data if trace.mode == "markers"]
    assert len(dots) == 13
    results.loc[0, figures.BITS] = float("nan")
    first = next(trace for trace in figures.bits_and_misses(results).data if trace.mode == "markers")
    assert (first.x[0], first.y[0]) == pytest.approx((1 - 0.51, 1.99))


def write_sweep(directory):
    results = table()
    results["run_dir"] = [f"{number}" for number in range(len(results))]
    sizes = ("total_parameters", "active_parameters", "flops_per_token")
    directory.mkdir()
    results.assign(**dict.fromkeys(sizes, 1e6)).to_parquet(directory / "results.parquet")
    return directory


def test_the_page_of_such_a_sweep_has_it_and_its_own_claims(tmp_path):
    directory = write_sweep(tmp_path / "locality")
    checked = report.write_sweep_report(directory, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Of 8 claims about locality, 6 hold and 2 fail in this sweep." in page
    assert "Bits per byte over misses" in page
    kept = Results.load(tmp_path / "out").tables["locality"].set_index(["locality", "balance.coefficient"])
    contrast = kept.loc[("contrast", "0.1")]
    assert contrast["LRU@2"] == pytest.approx(0.3 + 0.5 * 0.25 + 0.2 + 0.012)
    assert (contrast["effective experts"], contrast.seeds) == (60, 3)
    assert "MaxVio" not in kept  # which nobody logged
    assert set(checked.claim) >= {"balance", "collapse"}
    file = directory / "results.parquet"
    pd.read_parquet(file).drop(columns="locality").to_parquet(file)
    report.write_sweep_report(directory, tmp_path / "paper")
    assert "Bits per byte over misses" not in (tmp_path / "paper" / "report.html").read_text()


def test_the_picture_in_the_docs_has_a_line_for_each_scheme_in_the_order_of_coefficients(tmp_path):
    sweep = write_sweep(tmp_path / "sweep")
    script = runpy.run_path(str(ROOT / "docs" / "draw_locality.py"))
    script["main"]([str(tmp_path / "locality.png"), str(sweep)])
    assert (tmp_path / "locality.png").stat().st_size > 10_000
    _, balanced = script["draw"](table()).axes
    lines = {line.get_label(): line for line in balanced.lines}
    assert lines.keys() == set(table().locality)
    assert list(lines["none"].get_xdata()) == pytest.approx([0.4, 0.2, 0.1])
    assert list(lines["none"].get_ydata()) == pytest.approx([0.5 + 0.012, 0.4 + 0.012, 0.35 + 0.012])
    assert lines["adjacent/strong"].get_alpha() < lines["adjacent"].get_alpha()
    with pytest.raises(SystemExit) as stop:
        script["main"]([str(tmp_path / "locality.png")])
    assert stop.value.code == 2
