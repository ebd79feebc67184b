import shutil
from dataclasses import replace

import pytest

from moe_toy.errors import UserError
from moe_toy.evaluation.runs import FinishedRuns
from moe_toy.evaluation.settings import Options
from moe_toy.report.compare import write_comparison
from moe_toy.results import Results


@pytest.fixture(scope="module")
def comparison(evaluated, tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("comparison")
    return write_comparison(evaluated, out_dir).read_text(), Results.load(out_dir)


def test_models_are_ranked_by_consistency(comparison):
    ranking = comparison[1].tables["models"]
    assert ranking.srp.is_monotonic_decreasing
    assert set(ranking.model) == {"small", "top 1", "top 4"}
    assert ranking.set_index("model").loss.to_dict() == pytest.approx(
        {"small": float("nan"), "top 1": 3.5, "top 4": 3.4}, nan_ok=True
    )


def test_the_page_shows_every_model_and_r(comparison):
    text, results = comparison
    r = results.tables["correlations"].query("y == 'sch' and segment_length == 16 and cache_ratio == 1.5").r.item()
    assert f">{r:.3f}<" in text
    assert all(name in text for name in ("small", "top 1", "top 4"))
    assert "What it costs" in text


def test_the_pairs_behind_r_are_kept(comparison):
    tables = comparison[1].tables
    assert set(tables) == {"models", "srp_sch", "sch_caches", "correlations"}
    assert set(tables["srp_sch"].model) == {"small", "top 1", "top 4"}


def test_models_of_one_name_are_told_apart(evaluated, tmp_path):
    shutil.copytree(evaluated[0], tmp_path / "again")
    write_comparison([evaluated[0], tmp_path / "again"], tmp_path / "out")
    names = Results.load(tmp_path / "out").summary["models"]
    assert sorted(names) == sorted([f"small ({evaluated[0]})", f"small ({tmp_path / 'again'})"])


def test_one_model_is_no_comparison(evaluated, tmp_path):
    with pytest.raises(UserError, match="at least two evaluated folders, not 1"):
        write_comparison(evaluated[:1], tmp_path)


def test_an_evaluated_folder_is_not_overwritten(evaluated):
    with pytest.raises(UserError, match="holds the evaluation of a model; choose another folder"):
        write_comparison(evaluated, evaluated[1])


def test_a_folder_without_evaluation_is_named(evaluated, tmp_path):
    with pytest.raises(UserError, match="holds no finished evaluation"):
        write_comparison([evaluated[0], tmp_path], tmp_path / "out")


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("summary.json", "{}", r"summary.json has no name, which .*; evaluate again, to another out_dir"),
        ("summary.json", "[]", r"summary.json is damaged .*; evaluate again, to another out_dir"),
        ("tables/srp.parquet", "PAR1", r"srp.parquet is damaged"),
        ("tables/cache.parquet", None, r"there is no .*/tables/cache.parquet"),
    ],
)
def test_an_evaluation_that_is_not_whole_is_refused(evaluated, tmp_path, file, content, expected):
    shutil.copytree(evaluated[0], tmp_path / "a")
    (tmp_path / "a" / file).unlink()
    if content is not None:
        (tmp_path / "a" / file).write_text(content)
    with pytest.raises(UserError, match=expected):
        write_comparison([tmp_path / "a", evaluated[1]], tmp_path / "out")


def test_models_of_other_segments_are_refused(evaluated, tmp_path):
    other = Results.load(evaluated[0])
    other.summary["recommendation"]["segment_length"] = 64
    other.save(tmp_path)
    with pytest.raises(UserError, match="segments of different lengths"):
        write_comparison([evaluated[1], tmp_path], tmp_path / "out")


def test_hit_rates_of_different_kinds_are_refused(evaluated, tmp_path):
    """One trace had two LRU hit rates in a ranking: by layer as of now, and by token as an earlier version counted."""
    results = Results.load(evaluated[0])
    cache = results.tables["cache"]
    before = {"cache": cache[cache.order != "layer"].drop(columns="order")}
    replace(results, tables=results.tables | before).save(tmp_path / "before")
    replace(results, summary=results.summary | {"settings": {"cold": "miss"}}).save(tmp_path / "cold")
    with pytest.raises(UserError, match=r"asked in different orders \(small .*: layer, .*: token\); evaluate"):
        write_comparison([evaluated[0], tmp_path / "before"], tmp_path / "out")
    with pytest.raises(UserError, match=r"metrics.cold \(top 1: hit, small: miss\); evaluate them alike"):
        write_comparison([evaluated[1], tmp_path / "cold"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="asked in different orders"):
        FinishedRuns(paths=[evaluated[1], tmp_path / "before"], options=Options(allow_different_text=True)).check()


def test_equal_text_in_blocks_of_other_lengths_is_refused(evaluated, tmp_path):
    """Caches start empty in each block, so the shorter one has lower hit rates whatever the model."""
    for folder, length in zip(evaluated[:2], (64, 32), strict=True):
        results = Results.load(folder)
        read = {"text": {"words": "a text", "fingerprint": "0"}, "sequence_length": length}
        replace(results, summary=results.summary | read).save(tmp_path / str(length))
    paths = [tmp_path / "64", tmp_path / "32"]
    with pytest.raises(UserError, match=r"small was measured on blocks of 64 tokens, top 1 on blocks of 32: .*=true"):
        FinishedRuns(paths=paths, options=Options()).check()
    FinishedRuns(paths=paths, options=Options(allow_different_text=True)).check()


def test_a_folder_given_twice_counts_once(evaluated, tmp_path):
    with pytest.raises(UserError, match="at least two evaluated folders, not 1"):
        write_comparison([evaluated[0], evaluated[0]], tmp_path)


def test_a_comparison_is_renewed_but_not_compared(evaluated, tmp_path):
    write_comparison(evaluated[:2], tmp_path)
    write_comparison(evaluated, tmp_path)
    assert len(Results.load(tmp_path).summary["models"]) == 3
    with pytest.raises(UserError, match="holds a comparison; give the folders of the models"):
        write_comparison([evaluated[0], tmp_path], tmp_path / "out")
