"""The files of an assembled corpus: their names, their manifest, and writing them whole or not at all."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict

from moe_toy.corpus.recipes.recipe import Recipe
from moe_toy.corpus.recipes.selection import Row
from moe_toy.errors import UserError


class Entry(TypedDict):
    """What the manifest says of a file."""

    documents: int
    text_bytes: int
    rows_sha256: str
    sources: list[str]
    licences: list[str]


def file_names(recipe: Recipe) -> list[str]:
    """Paths of a recipe's files in the corpus folder, without suffix, in the order of its splits."""
    if recipe.evaluation_only:
        return [f"extra/{recipe.name}"]
    return [f"{recipe.name}-train", f"{recipe.name}-validation"]


def read_manifest(folder: Path) -> dict[str, Entry]:
    """What is known to be complete, by file name without suffix."""
    path = folder / "manifest.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as error:
        raise UserError(
            f"{path} is damaged ({error}); remove it, and the next start assembles the text anew"
        ) from error


def write_manifest(folder: Path, manifest: dict[str, Entry]) -> None:
    _replace(folder / "manifest.json", (json.dumps(manifest, indent=1) + "\n").encode())


def write_rows(path: Path, rows: Sequence[Row]) -> Entry:
    import pyarrow as pa  # here: slow, and not needed when the corpus is there
    from pyarrow import parquet

    columns = {name: pa.array([getattr(row, name) for row in rows], pa.string()) for name in Row._fields}
    buffer = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), buffer, compression="zstd", row_group_size=max(len(rows), 1))
    _replace(path, buffer.getvalue().to_pybytes())
    return Entry(
        documents=len(rows),
        text_bytes=sum(len(row.text.encode()) for row in rows),
        rows_sha256=rows_sha256(rows),
        sources=sorted({row.source for row in rows}),
        licences=sorted({row.licence for row in rows}),
    )


def read_texts(folder: Path, file: str) -> Iterator[str]:
    """The texts of a file. Raises a `UserError` if its rows are not those that were written."""
    import pyarrow as pa
    from pyarrow import parquet

    path = folder / f"{file}.parquet"
    try:
        rows = [Row(**row) for row in parquet.read_table(path).to_pylist()]
        found = rows_sha256(rows)
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        found = f"unreadable: {error}"
    if found != read_manifest(folder)[file]["rows_sha256"]:
        raise UserError(f"{path} is damaged; remove it, and the next start assembles it anew")
    return (row.text for row in rows)


def rows_sha256(rows: Sequence[Row]) -> str:
    """Of the rows and not of the file, which depends on the version of pyarrow."""
    return hashlib.sha256("\x1e".join("\x1f".join(row) for row in rows).encode()).hexdigest()


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
