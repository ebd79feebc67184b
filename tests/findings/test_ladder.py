"""Effects at several sizes, from results made by hand, and the picture of them."""

import math
import runpy

import pandas as pd
import pytest

from moe_toy.errors import UserError
from moe_toy.files.csv_tables import read_csv
from moe_toy.findings.ladder import climb
from tests.findings.test_claims import SRP, results
from tests.paths import ROOT


def sweep(parameters: int, steps: int | None = 400, **arms) -> pd.DataFrame:
    table = results(**arms).assign(total_parameters=parameters, run_dir="r", active_parameters=1, flops_per_token=1)
    return table if steps is None else table.assign(step=float(steps))


@pytest.fixture
def small():
    return sweep(18_000_000, nolb=[0.6, 0.62, 0.64], baseline=[0.5, 0.51, 0.52])


@pytest.fixture
def nano():
    return sweep(4_400_000, nolb=[0.8, 0.8], baseline=[0.4, 0.5], share1=[0.3, 0.3])


def test_rungs_rise_by_size_with_the_paper_last(small, nano):
    ladder = climb({"b": small, "a": nano})
    assert list(ladder.rung.unique()) == ["4M, 400 steps", "18M, 400 steps", "1427M, the paper"]
    assert ladder[ladder.rung == "4M, 400 steps"].arm.tolist() == ["nolb", "share1"]


def test_effects_are_differences_within_a_seed(small):
    (nolb,) = climb({"a": small}).query("parameters == 18_000_000").itertuples()
    assert (nolb.arm, nolb.seeds, nolb.effect) == ("nolb", 3, pytest.approx(0.11))
    assert nolb.ci_high - nolb.effect == pytest.approx(4.3027 * 0.01 / math.sqrt(3), rel=1e-4)


def test_the_papers_effects_are_those_of_its_table_and_of_one_run(small):
    published = climb({"a": small}).query("rung.str.endswith('the paper')").set_index("arm")
    assert published.effect["nolb"] == pytest.approx(0.5642 - 0.4356)
    assert len(published) == 9
    assert published[["ci_low", "ci_high"]].isna().all(axis=None)


def test_what_the_paper_has_no_plot_of_climbs_without_it(small):
    ladder = climb({"a": small.rename(columns={SRP: "load/cv"})}, metric="load/cv")
    assert list(ladder.rung.unique()) == ["18M, 400 steps"]


def test_lengths_are_rungs_too_and_a_sweep_that_says_none_has_none(nano):
    longer = nano.assign(step=1600.0)
    unknown = nano.drop(columns="step")
    assert list(climb({"a": longer, "b": nano, "c": unknown}).steps.unique()) == [0, 400, 1600]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table[table.arm != "baseline"], "b has no finished arm baseline"),
        (lambda table: table.drop(columns=SRP), f"b has no {SRP}; give sweeps that logged it"),
        (lambda table: table.assign(step=[1.0, 2.0] * 3), "b has runs of 1, 2 steps"),
        (lambda table: table.assign(total_parameters=18_000_000), "a and b are of the same size and length"),
    ],
    ids=["baseline", "metric", "steps", "twice"],
)
def test_sweeps_that_cannot_be_rungs_are_refused(small, nano, change, said):
    with pytest.raises(UserError, match=said):
        climb({"a": small, "b": change(nano)})


def test_the_picture_has_a_panel_for_each_arm_and_its_numbers_beside_it(small, nano, tmp_path):
    for name, table in {"nano": nano, "small": small}.items():
        (tmp_path / name).mkdir()
        table.to_parquet(tmp_path / name / "results.parquet")
    script = runpy.run_path(str(ROOT / "docs" / "draw_ladder.py"))
    script["main"]([str(tmp_path / name) for name in ("ladder.png", "nano", "small")])
    assert (tmp_path / "ladder.png").stat().st_size > 10_000
    numbers = read_csv(tmp_path / "ladder.csv")
    assert numbers.rung.nunique() == 3
    panels = [axis for axis in script["draw"](numbers).axes if axis.get_visible()]
    assert [axis.get_title() for axis in panels] == ["nolb", "share1"]
    with pytest.raises(SystemExit) as stop:
        script["main"]([str(tmp_path / "ladder.png")])
    assert stop.value.code == 2
