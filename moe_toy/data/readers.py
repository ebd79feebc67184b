"""Documents from files: .txt, .jsonl (a `text` field), .parquet (a `text` column). A null text is no document.

A file that cannot be read is the user's to mend, so every error names the file and the place in it.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from moe_toy.errors import UserError
from moe_toy.files.reading import UnreadableError, reading

log = logging.getLogger(__name__)
FILE_TYPES = (".txt", ".jsonl", ".parquet")
LONGEST_LINE = 64 * 2**20  # bytes; a line is held in memory as a whole
ROWS = 4  # of parquet at a time: a column can name one long text in many rows, of a few bits each


def read_documents(path: Path, max_characters: int) -> Iterator[str]:
    """Non-empty texts. A .txt file longer than `max_characters` is several, cut at blank lines."""
    if file_type(path) == ".parquet":
        texts = read_parquet(path)
    elif file_type(path) == ".jsonl":
        texts = _read_jsonl(path)
    else:
        texts = _pieces(_lines(path), max_characters)
    return (text for text in texts if text.strip())


def file_type(path: Path) -> str:
    return path.suffix.lower()


def check_file(path: Path) -> None:
    """Whether it can be read: encoding of the whole file, or the columns; a few hundred MB a second."""
    if file_type(path) == ".parquet":
        _check_parquet(path)
    else:
        deque(_lines(path), maxlen=0)


def read_parquet(path: Path) -> Iterator[str]:
    _check_parquet(path)
    return _whole_rows(path)


def _whole_rows(path: Path) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    num_nulls = 0
    try:
        with reading(path), pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS, columns=["text"]):
                num_nulls += batch.column(0).null_count
                for value in batch.column(0):
                    if text := value.as_py():
                        yield text
    except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError) as error:
        raise UserError(f"{path} is damaged ({str(error).splitlines()[0]}); write it again") from error
    _tell_of_nulls(path, num_nulls)


def _read_jsonl(path: Path) -> Iterator[str]:
    num_nulls = 0
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", str(error))
            raise UserError(f"{path} line {number} is not JSON ({reason}): {line.strip()[:60]!r}; fix it") from None
        if isinstance(row, dict) and row.get("text", "") is None:
            num_nulls += 1
            continue
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise UserError(f"{path} line {number} has no string `text`: {line.strip()[:60]!r}; add the field")
        yield row["text"].encode("utf-8", "replace").decode()  # JSON may spell halves of characters
    _tell_of_nulls(path, num_nulls)


def _tell_of_nulls(path: Path, number: int) -> None:
    if number:
        log_once(f"{path}: {number} null texts are left out")


@lru_cache(maxsize=1000)
def log_once(words: str) -> None:
    """In a process: a run gets its text ready and reads it several times."""
    log.info(words)


def _pieces(lines: Iterable[str], max_characters: int) -> Iterator[str]:
    """Cut at the first blank line after `max_characters`, or at any line after twice as many."""
    piece: list[str] = []
    size = 0
    for line in lines:
        if size > max_characters and (not line.strip() or size > 2 * max_characters):
            yield "".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    yield "".join(piece)


def _lines(path: Path) -> Iterator[str]:
    offset = 0
    with reading(path), path.open("rb") as file:
        while line := file.readline(LONGEST_LINE + 1):
            if len(line) > LONGEST_LINE:
                raise UserError(f"{path}: the line at byte {offset} has more than {LONGEST_LINE} bytes; break it up")
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}: byte {offset + error.start} is not UTF-8 ({line[error.start]:#04x}); convert the file,"
                    " for example with iconv"
                ) from None
            yield text if offset else text.removeprefix("\ufeff")
            offset += len(line)


def _check_parquet(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with reading(path):
            schema = pq.read_schema(path)
        columns = schema.names
    except UnreadableError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} is not a parquet file ({str(error).splitlines()[0]}); write it again") from None
    if "text" not in columns:
        raise UserError(f"{path} has no column `text`, only {', '.join(columns)}; rename the one with the text")
    kind = schema.field(columns.index("text")).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise UserError(f"{path}: its column `text` holds {kind}, not strings; write it again")
