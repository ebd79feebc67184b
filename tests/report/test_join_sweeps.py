"""Seeds of one sweep from several directories: all of them once, and of one kind."""

import json
import runpy
from pathlib import Path

import pytest

from moe_toy.report.sweep_files import read_sweep
from tests.paths import ROOT
from tests.report.test_locality import write_sweep


@pytest.fixture
def join():
    return runpy.run_path(str(ROOT / "docs" / "join_sweeps.py"))["main"]


@pytest.fixture
def halves(tmp_path):
    """A directory with seeds 11 and 12, and one with seed 13."""
    whole = read_sweep(write_sweep(tmp_path / "whole")).assign(step=300.0)
    whole.to_parquet(tmp_path / "whole" / "results.parquet")
    for name, rows in {"two": whole[whole.seed < 13], "one": whole[whole.seed == 13]}.items():
        (tmp_path / name).mkdir()
        rows.to_parquet(tmp_path / name / "results.parquet")
    return [str(tmp_path / name) for name in ("two", "one")]


def test_all_rows_are_there_once(join, halves, tmp_path):
    join([str(tmp_path / "out"), *halves])
    whole, joined = (read_sweep(tmp_path / name).sort_values(["arm", "seed"]) for name in ("whole", "out"))
    assert joined.to_dict("records") == whole.to_dict("records")


def test_what_does_not_belong_together_is_refused_and_nothing_written(join, halves, tmp_path, capsys):
    table = read_sweep(tmp_path / "one")
    changes = {
        "again": ({}, "of seed 13; give one of them"),
        "other": ({"top_k": 4, "seed": 14}, "top_k of arm"),
        "longer": ({"step": 400.0, "seed": 14}, "step of arm"),
    }
    for name, (change, complaint) in changes.items():
        (tmp_path / name).mkdir()
        table.assign(**change).to_parquet(tmp_path / name / "results.parquet")
        with pytest.raises(SystemExit) as stop:
            join([str(tmp_path / "out"), *halves, str(tmp_path / name)])
        assert stop.value.code == 2
        assert complaint in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        join([str(tmp_path / "out"), halves[0]])


def test_seeds_of_different_text_are_refused(join, halves, tmp_path, capsys):
    """As `target=sweep` refuses them, which sees a table only."""
    for half, fingerprint in zip(halves, ("0a", "0b"), strict=True):
        run = Path(half) / read_sweep(Path(half)).run_dir.iloc[0]
        run.mkdir()
        (run / "text.json").write_text(json.dumps({"fingerprint": fingerprint}))
    with pytest.raises(SystemExit) as stop:
        join([str(tmp_path / "out"), *halves])
    assert stop.value.code == 2
    assert "were trained on different text (fingerprints 0a and 0b); give seeds of one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
