"""Tables as CSV files that give back the text that was put in, also where it reads like a missing value or a number."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

MISSING = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"}
    | {"NULL", "NaN", "None", "n/a", "nan", "null"}
)
"""What `pandas.read_csv` takes for a missing value unless told otherwise; here it may be a token or a domain."""


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table without its index. Text that pandas would read as missing, and text that stands in quotes itself,
    is written in quotes that are part of the value, as are texts that would make their column one of numbers, such as
    domains called 2020 and 2021; a missing value is an empty field."""
    texts = {name: _as_text(table[name]) for name in table if _is_text(table[name])}
    # csv leaves a lone carriage return bare, which ends a line for pandas, unless it is told to quote all text.
    quoting = csv.QUOTE_NONNUMERIC if _has_returns(texts) else csv.QUOTE_MINIMAL
    table.assign(**texts).to_csv(path, index=False, quoting=quoting)


def read_csv(path: Path) -> pd.DataFrame:
    """Read what `write_csv` wrote, texts as they were."""
    import pandas as pd  # half a second

    table = pd.read_csv(path)
    return table.assign(**{name: _each_once(_unmarked, table[name]) for name in table if _is_text(table[name])})


def _is_text(column: pd.Series) -> bool:
    import pandas as pd

    return not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column))


def _as_text(column: pd.Series) -> pd.Series:
    import pandas as pd

    marked = _each_once(_marked, column)
    values = pd.Series(marked.dropna().unique())
    if values.empty or _is_text(pd.read_csv(io.StringIO(values.to_csv(index=False, header=["text"])))["text"]):
        return marked
    return _each_once(_in_quotes, column)


def _has_returns(texts: dict[str, pd.Series]) -> bool:
    return any("\r" in value for column in texts.values() for value in column.unique() if isinstance(value, str))


def _each_once(change: Callable[[object], object], column: pd.Series) -> pd.Series:
    """`column.map(change)`, called once for each of the few texts of a long table."""
    return column.map({value: change(value) for value in column.unique()})


def _is_marked(value: object) -> bool:
    return isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == '"'


def _marked(value: object) -> object:
    return _in_quotes(value) if _is_marked(value) or (isinstance(value, str) and value in MISSING) else value


def _in_quotes(value: object) -> object:
    return f'"{value}"' if isinstance(value, str) else value


def _unmarked(value: object) -> object:
    return value[1:-1] if isinstance(value, str) and _is_marked(value) else value
