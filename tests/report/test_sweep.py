"""The page of a sweep, and its figures, from results made by hand."""

import re
import runpy

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from moe_toy.errors import UserError
from moe_toy.evaluation import command
from moe_toy.evaluation.settings import Options
from moe_toy.evaluation.sweep import FinishedSweep
from moe_toy.report import sweep as report
from moe_toy.report.figures import sweep as figures
from moe_toy.results import Results
from tests.paths import CONF, ROOT

ARMS = {"nolb": 0.5, "baseline": 0.4, "overlb": 0.3}
KINDS = ("domain", "input", "predicted", "target")


@pytest.fixture
def results():
    """Three arms of three seeds, SRP falling from arm to arm."""
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "run_dir": f"arm={arm},seed={seed}",
            **{"num_experts": 64, "top_k": 8, "num_moe_layers": 4},
            **{"total_parameters": 4_000_000, "active_parameters": 1_000_000, "flops_per_token": 9_000_000},
            "val/loss": 3.0 + srp / 10,
            "consistency/srp@16": srp + seed / 1000,
            "cache/sch@16/ratio_1.5": srp + 0.1,
            "load/cv": srp,
            "load/cv@16": 2 * srp,
            "load/max_violation": 3 * srp,
            **{f"correlation/srp@16/{kind}": 0.4 - 0.1 * number for number, kind in enumerate(KINDS)},
        }
        for arm, srp in ARMS.items()
        for seed in (1, 2, 3)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def directory(results, tmp_path):
    """What such a sweep leaves behind."""
    folder = tmp_path / "paper<3"
    for row in results.itertuples():
        (folder / row.run_dir).mkdir(parents=True)
        curve = pd.DataFrame({"step": [0, 10], "val/loss": [5.0, 3.0], "consistency/srp@16": [0.6, 0.4]})
        curve.to_csv(folder / row.run_dir / "metrics.csv", index=False)
    results.to_parquet(folder / "results.parquet")
    return folder


def test_the_page_says_which_claims_hold_and_shows_every_arm(directory, tmp_path):
    checked = report.write_sweep_report(directory, tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    assert checked.set_index("claim").claim_verdict["a"].eq("holds").all()
    assert text.count("SRP falls as the local balance loss rises") == 1  # for its two comparisons
    assert "paper&lt;3" in text
    assert "<3" not in text.split("<script>")[0]
    kept = Results.load(tmp_path / "out")
    assert kept.summary["claims"]["a"] == "holds"
    assert kept.tables["arms"].arm.tolist() == list(ARMS)
    assert kept.tables["arms"]["SRP@16"].tolist() == pytest.approx([srp + 0.002 for srp in ARMS.values()])


def test_what_was_thought_of_after_the_fact_is_no_claim_of_the_summary(directory):
    judged = report.judge_sweep(directory)
    assert set(judged.summary["claims"]).isdisjoint(judged.summary["exploratory"])
    assert judged.tables["exploratory"].claim_verdict.eq("not measured").all()
    assert judged.tables["seeds"].comparison.tolist() == ["nolb - baseline", "baseline - overlb"]
    assert judged.tables["seeds"].published.tolist() == pytest.approx([0.1286, 0.0714])


def test_a_sweep_without_validation_has_a_page_too(directory, results, tmp_path):
    results.filter(regex="^[^/]*$").to_parquet(directory / "results.parquet")
    checked = report.write_sweep_report(directory, tmp_path / "out")
    assert checked.verdict.eq("not measured").all()


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (r"load/.*", "load/cv, load/cv@16, load/max_violation"),
        (r"load/cv@16", "load/cv@16"),
        (r"consistency/.*", "consistency/srp@16"),
        (r"val/loss", "val/loss"),
        (r"correlation/.*|cache/.*", "cache/sch@16/ratio_1.5"),
    ],
)
def test_curves_that_no_arm_logged_are_said_not_taken_for_granted(directory, results, tmp_path, missing, said):
    results[[key for key in results if not re.fullmatch(missing, key)]].to_parquet(directory / "results.parquet")
    report.write_sweep_report(directory, tmp_path / "out")
    assert (
        f"Not shown for want of curves that no finished arm logged: {said}"
        in (tmp_path / "out" / "report.html").read_text()
    )


def test_results_of_an_earlier_version_are_read_under_the_names_of_now(directory, results):
    old = {"consistency/srp@16": "routing/srp@16", "load/cv": "routing/load_cv", "load/cv@16": "routing/load_cv@16"}
    results.rename(columns=old).to_parquet(directory / "results.parquet")
    assert set(report.read_sweep(directory)) == set(results)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.drop(columns="flops_per_token"), "it has no column flops_per_token"),
        (lambda table: table.drop(columns="arm"), "it has no column arm"),
        (lambda table: table.iloc[:0], "it holds no arm"),
        (lambda table: table.assign(**{"val/loss": "low"}), "Unable to parse string"),
        (lambda table: pd.concat([table, table[3:4]]), "it holds arm baseline of seed 1 twice"),
    ],
    ids=["cost", "arm", "empty", "text", "twice"],
)
def test_a_table_that_no_sweep_wrote_is_damaged(directory, results, change, said):
    change(results).to_parquet(directory / "results.parquet")
    with pytest.raises(UserError, match=rf"results.parquet is damaged \({said}.*remove it and run the sweep's command"):
        report.read_sweep(directory)


def test_seeds_written_as_text_are_numbers(directory, results):
    results.assign(seed=results.seed.astype(str)).to_parquet(directory / "results.parquet")
    assert report.judge_sweep(directory).summary["seeds"] == [1, 2, 3]


def test_damage_in_a_sweep_is_found_before_there_is_a_folder(directory, tmp_path):
    target = FinishedSweep(path=directory, options=Options())
    target.check()
    target.prepare(tmp_path / "out")
    (directory / "arm=nolb,seed=1" / "metrics.csv").write_text("step,val/loss\n")
    with pytest.raises(UserError, match=r"metrics.csv is damaged \(it holds no steps\)"):
        target.prepare(tmp_path / "out")


def test_an_arm_without_logger_draws_no_curve(directory, tmp_path):
    (directory / "arm=nolb,seed=1" / "metrics.csv").unlink()
    report.write_sweep_report(directory, tmp_path / "out")
    assert (tmp_path / "out" / "report.html").exists()


def test_bars_show_intervals_over_seeds_and_the_papers_value_beside(results):
    bars, diamonds = figures.srp_by_arm(results, {"baseline": 0.4356}).data
    assert list(bars.y) == ["overlb", "baseline", "nolb"]
    assert list(bars.x) == pytest.approx([0.302, 0.402, 0.502])
    half = 4.3027 * 0.001 / np.sqrt(3)
    assert list(bars.error_x.array) == pytest.approx([half] * 3, rel=1e-3)
    assert list(diamonds.y) == ["baseline"]


def test_bars_of_one_seed_have_no_interval(results):
    bars = figures.srp_by_arm(results[results.seed == 1], {}).data[0]
    assert np.isnan(np.array(bars.error_x.array, dtype=float)).all()


def test_arms_that_none_beats_in_loss_balance_and_srp_are_ringed(results):
    worse = results[results.arm == "nolb"].assign(arm="worse", **{"val/loss": 9.0})
    (dots,) = figures.loss_balance_and_srp(pd.concat([results, worse])).data
    ringed = dict(zip(dots.text, dots.marker.line.width, strict=True))
    assert {arm for arm, width in ringed.items() if width} == set(ARMS)


def test_curves_are_means_over_seeds_and_the_reader_chooses_the_metric():
    runs = [pd.DataFrame({"step": [0, 1], "loss": [4.0, 3.0 - seed], "srp": [0.5, np.nan]}) for seed in (0, 1)]
    figure = figures.curves({"baseline": runs}, {"loss": "loss", "srp": "SRP"}, first="srp")
    loss, srp = figure.data
    assert list(loss.y) == [4.0, 2.5]
    assert list(srp.x) == [0]
    assert (loss.visible, srp.visible) == (False, True)
    assert list(figure.layout.meta["choices"]) == ["loss", "SRP"]


def test_the_picture_in_the_docs_takes_arms_that_the_paper_has_not(results, tmp_path, capsys):
    """It ended in a KeyError, and a directory without results in the traceback of a UserError."""
    script = runpy.run_path(str(ROOT / "docs" / "draw_sweep.py"))
    ours = results.replace({"arm": {"overlb": "ours"}})
    ours.loc[0, "consistency/srp@16"] = np.nan
    bars = script["draw"](ours).axes[0]
    diamonds = bars.collections[-1].get_offsets()
    assert len(diamonds) == 2
    assert [bar.get_width() for bar in bars.patches] == pytest.approx([0.302, 0.402, 0.5025])
    with pytest.raises(SystemExit) as stop:
        script["main"]([str(tmp_path), str(tmp_path / "picture.png")])
    assert stop.value.code == 2
    assert "holds no results.parquet" in capsys.readouterr().err


def test_strict_leaves_with_1_if_a_claim_fails(directory, tmp_path, results, capsys):
    def judge(strict: bool) -> None:
        overrides = ["target=sweep", f"target.path='{directory}'", f"strict={strict}", f"out_dir={tmp_path}/out"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            command.run(compose("evaluate", overrides))

    judge(strict=True)
    printed = capsys.readouterr().out
    assert "holds: SRP falls" in printed
    assert "not measured: h over all arms but the collapsed one" in printed.partition("exploratory")[2]
    assert "nolb - baseline" in printed.partition("seeds needed")[2]
    results.assign(**{"consistency/srp@16": 1 - results["consistency/srp@16"]}).to_parquet(
        directory / "results.parquet"
    )
    judge(strict=False)
    with pytest.raises(SystemExit) as stop:
        judge(strict=True)
    assert stop.value.code == 1


def test_a_folder_without_or_with_damaged_results_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no results"):
        report.read_sweep(tmp_path)
    (tmp_path / "results.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="is damaged"):
        report.read_sweep(tmp_path)
