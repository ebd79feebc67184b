"""Results survive their folder, and a folder without them is named."""

import pandas as pd
import pytest

from moe_toy.files.csv_tables import read_csv
from moe_toy.results import Results


def test_results_come_back_as_they_were_saved(tmp_path):
    table = pd.DataFrame({"layer": pd.array([0, None], dtype="Int64"), "domain": ["books", None], "srp": [0.5, 0.25]})
    Results({"name": "nano", "loss": None}, {"srp": table}).save(tmp_path)
    again = Results.load(tmp_path)
    assert again.summary == {"name": "nano", "loss": None}
    pd.testing.assert_frame_equal(again.tables["srp"], table, check_dtype=False)
    assert pd.read_csv(tmp_path / "tables" / "srp.csv").srp.tolist() == [0.5, 0.25]
    assert not list(tmp_path.rglob("*.part"))


def test_tables_of_earlier_results_do_not_stay(tmp_path):
    """They were read again as if they belonged to the summary beside them."""
    table = pd.DataFrame({"srp": [0.5]})
    Results({}, {"srp": table, "throughput": table}).save(tmp_path)
    Results({}, {"srp": table}).save(tmp_path)
    assert set(Results.load(tmp_path).tables) == {"srp"}
    assert {file.name for file in (tmp_path / "tables").iterdir()} == {"srp.parquet", "srp.csv"}


def test_a_domain_called_like_a_missing_value_survives_in_csv(tmp_path):
    Results({}, {"loss": pd.DataFrame({"domain": ["NA", "null", None], "loss": [1.0, 2.0, 3.0]})}).save(tmp_path)
    assert pd.read_csv(tmp_path / "tables" / "loss.csv").domain.isna().tolist() == [False, False, True]
    assert read_csv(tmp_path / "tables" / "loss.csv").domain.tolist()[:2] == ["NA", "null"]


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no finished evaluation"):
        Results.load(tmp_path)


def test_a_damaged_table_is_told(tmp_path):
    Results({}, {"srp": pd.DataFrame({"srp": [0.5]})}).save(tmp_path)
    (tmp_path / "tables" / "srp.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ValueError, match="is damaged"):
        Results.load(tmp_path)
