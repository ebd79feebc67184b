"""CSV tables give back the text that was put in."""

import pandas as pd
import pytest
from pandas._libs.parsers import STR_NA_VALUES

from moe_toy.files.csv_tables import MISSING, read_csv, write_csv

ODD = ['"', '""', '"NA"', '""null""', " NA", "na", "a,b", "a\nb", "a\rb", "\r", "é🙂", "'", "\t"]
WORDS = [*sorted(STR_NA_VALUES), *ODD]


def test_all_words_that_pandas_takes_for_missing_are_known():
    assert MISSING == STR_NA_VALUES


def test_words_for_nothing_are_text_and_missing_values_are_missing(tmp_path):
    table = pd.DataFrame({"token": [*WORDS, None], "strength": [*range(len(WORDS)), None]})
    write_csv(table, tmp_path / "t.csv")
    assert read_csv(tmp_path / "t.csv").token.tolist()[:-1] == WORDS
    with_defaults = pd.read_csv(tmp_path / "t.csv")
    assert with_defaults.token.isna().tolist() == [*[False] * len(WORDS), True]
    assert with_defaults.token.nunique() == len(set(WORDS))
    assert with_defaults.strength.tolist()[:-1] == list(range(len(WORDS)))


@pytest.mark.parametrize("word", sorted(STR_NA_VALUES))
def test_a_column_of_one_such_word_survives(tmp_path, word):
    write_csv(pd.DataFrame({"domain": [word, word], "n": [1, 2]}), tmp_path / "t.csv")
    assert pd.read_csv(tmp_path / "t.csv").domain.tolist() == [f'"{word}"'] * 2
    assert read_csv(tmp_path / "t.csv").domain.tolist() == [word] * 2


@pytest.mark.parametrize("words", [["2020", "2021"], ["007", None], ["1e3", "-inf"], ["True", "FALSE"], ["1 ", " 2"]])
def test_a_column_of_text_that_reads_as_numbers_stays_text(tmp_path, words):
    write_csv(pd.DataFrame({"domain": words, "year": [2020, 2021]}), tmp_path / "t.csv")
    table = read_csv(tmp_path / "t.csv")
    assert table.domain.dropna().tolist() == [word for word in words if word is not None]
    assert table.year.tolist() == [2020, 2021]
    assert pd.read_csv(tmp_path / "t.csv").domain.notna().tolist() == [word is not None for word in words]


def test_other_text_is_written_as_before(tmp_path):
    table = pd.DataFrame({"domain": ["books", None, "2020"], "layer": pd.array([0, None, 2], dtype="Int64")})
    write_csv(table, tmp_path / "t.csv")
    table.to_csv(tmp_path / "plain.csv", index=False)
    assert (tmp_path / "t.csv").read_bytes() == (tmp_path / "plain.csv").read_bytes()
