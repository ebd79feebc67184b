"""Sources of text: what they read, how they split, what they refuse."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moe_toy.corpus import corpus
from moe_toy.corpus.corpus_files import write_manifest, write_rows
from moe_toy.corpus.domains import CorpusDomains
from moe_toy.corpus.recipes.selection import Row
from moe_toy.data.domains import FileDomains
from moe_toy.errors import UserError


def files(path, validation_fraction=0.3, max_characters=1000):
    return FileDomains(path=path, validation_fraction=validation_fraction, max_characters=max_characters)


def check_and_read(source):
    source.check()
    for domain in source.domains:
        list(source.documents(domain, "train"))


def write_jsonl(path, texts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))


def write_parquet(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def test_each_file_or_folder_is_a_domain_and_three_types_are_read(tmp_path):
    (tmp_path / "prose.txt").write_text("Once upon a time.\n\nThere was more.")
    write_jsonl(tmp_path / "posts" / "2020" / "a.jsonl", ["one", "two", " "])
    write_parquet(tmp_path / "posts" / "b.parquet", text=["three", "", None], other=[1, 2, 3])
    (tmp_path / ".DS_Store").write_text("")
    source = files(tmp_path)
    source.check()
    assert source.domains == ("posts", "prose")
    texts = [*source.documents("posts", "train"), *source.documents("posts", "validation")]
    assert sorted(texts) == ["one", "three", "two"]


def test_the_split_depends_on_the_text_alone(tmp_path):
    texts = [f"document {i}" for i in range(200)]
    write_jsonl(tmp_path / "x.jsonl", texts)
    train, validation = (set(files(tmp_path).documents("x", split)) for split in ("train", "validation"))
    assert train | validation == set(texts)
    assert not train & validation
    assert 30 < len(validation) < 90
    write_jsonl(tmp_path / "x.jsonl", [*texts[::-1], "more"])
    assert validation <= set(files(tmp_path).documents("x", "validation"))


def test_folders_named_train_and_validation_are_the_split(tmp_path):
    write_jsonl(tmp_path / "train" / "x.jsonl", ["a", "b"])
    write_jsonl(tmp_path / "validation" / "x.jsonl", ["c"])
    source = files(tmp_path)
    assert source.domains == ("x",)
    assert list(source.documents("x", "train")) == ["a", "b"]
    assert list(source.documents("x", "validation")) == ["c"]


def test_a_long_text_file_is_cut_at_blank_lines_and_nothing_is_lost(tmp_path):
    book = "\n\n".join(f"Paragraph {i} " + "word " * 20 for i in range(200))
    (tmp_path / "book.txt").write_text(book)
    source = files(tmp_path)
    pieces = [*source.documents("book", "train"), *source.documents("book", "validation")]
    assert len(pieces) > 10
    assert max(map(len, pieces)) < 1200
    assert sum(map(len, pieces)) == len(book)


def test_domains_can_be_chosen(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(name)
    assert files(tmp_path).select(["c", "a"]).domains == ("c", "a")


def test_the_fingerprint_changes_with_the_text_and_the_split(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    before = files(tmp_path).fingerprint()
    assert files(tmp_path).fingerprint() == before
    assert files(tmp_path, validation_fraction=0.5).fingerprint() != before
    (tmp_path / "a.txt").write_text("two, longer")
    assert files(tmp_path).fingerprint() != before


def test_halves_of_characters_in_json_do_not_break_encoding(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x\\ud800y"}')
    texts = [*files(tmp_path).documents("a", "train"), *files(tmp_path).documents("a", "validation")]
    assert texts == ["x?y"]


def corrupt_encoding(path):
    (path / "a.txt").write_bytes(b"fine\nline\n\xff oops")


def not_json(path):
    (path / "a.jsonl").write_text('{"text": "fine"}\n{"text": ')


def no_text_field(path):
    (path / "a.jsonl").write_text('{"text": "fine"}\n\n{"body": "x"}')


def empty_file(path):
    (path / "a.txt").write_text("")


def unknown_type(path):
    (path / "a.docx").write_text("x")


def not_parquet(path):
    (path / "a.parquet").write_text("x")


def no_text_column(path):
    write_parquet(path / "a.parquet", body=["x"])


def only_train(path):
    write_jsonl(path / "train" / "a.jsonl", ["x"])


def domain_without_validation(path):
    write_jsonl(path / "train" / "a.jsonl", ["x"])
    write_jsonl(path / "train" / "b.jsonl", ["x"])
    write_jsonl(path / "validation" / "a.jsonl", ["x"])


def nothing(path):
    pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (corrupt_encoding, r"a.txt: byte 10 is not UTF-8 \(0xff\)"),
        (not_json, r"a.jsonl line 2 is not JSON"),
        (no_text_field, r"a.jsonl line 3 has no string `text`: '{\"body\": \"x\"}'"),
        (empty_file, r"a.txt is empty"),
        (unknown_type, r"a.docx: unknown file type '.docx'; use .txt, .jsonl, .parquet"),
        (not_parquet, r"a.parquet is not a parquet file"),
        (no_text_column, r"a.parquet has no column `text`, only body"),
        (only_train, r"has train/ but no validation/"),
        (domain_without_validation, r"validation has no text for b"),
        (nothing, r"holds no text"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_bad_folder_is_one_line_that_names_the_place(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        check_and_read(files(tmp_path))
    assert "\n" not in str(error.value)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere is not a folder"):
        files(tmp_path / "nowhere").check()
    with pytest.raises(UserError, match=r"data.source.path is not set"):
        files(None).check()


@pytest.mark.parametrize("domains", [["a", "x"], [], ["a", "a"]], ids=["unknown", "none", "twice"])
def test_a_wrong_choice_of_domains_is_refused(tmp_path, domains):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(UserError, match=r"data.domains"):
        files(tmp_path).select(domains)


@pytest.fixture
def assembled(tmp_path, monkeypatch):
    """A tiny corpus in place of the real one; gives the calls that assembled it."""
    calls = []

    def assemble(root, *, domains=None, archives=None):
        calls.append((root, domains, archives))
        manifest = {}
        for file in (f"{domain}-{split}" for domain in domains for split in ("train", "validation")):
            manifest[file] = write_rows(root / f"{file}.parquet", [Row(file, "domain", "source", "licence")])
        write_manifest(root, manifest)
        return root

    monkeypatch.setattr(corpus, "assemble", assemble)
    return calls


def test_the_corpus_is_assembled_once_with_the_domains_asked_for(tmp_path, assembled):
    source = CorpusDomains(root=tmp_path, archives=None).select(["wiki", "web"])
    source.check()
    assert not assembled
    source.prepare()
    assert list(source.documents("wiki", "validation")) == ["wiki-validation"]
    assert source.fingerprint() != source.select(["web"]).fingerprint()
    assert assembled[0] == (tmp_path, ("wiki", "web"), None)


def test_assembled_text_that_was_changed_by_hand_is_refused(tmp_path, assembled):
    source = CorpusDomains(root=tmp_path, archives=None).select(["wiki"])
    source.prepare()
    write_rows(tmp_path / "wiki-train.parquet", [Row("other", "domain", "source", "licence")])
    tmp_path.joinpath("wiki-validation.parquet").write_bytes(b"PAR1")
    for split in ("train", "validation"):
        with pytest.raises(UserError, match=rf"wiki-{split}.parquet is damaged; remove it"):
            source.documents("wiki", split)


def test_the_corpus_has_all_domains_unless_told():
    assert CorpusDomains(root=None, archives=None).domains == tuple(corpus.DOMAINS)


def test_a_wrong_corpus_configuration_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"data.domains names wkii; available are web, "):
        CorpusDomains(root=None, archives=None).select(["wkii"])
    with pytest.raises(UserError, match=r"data.source.archives=.*nowhere is not a folder"):
        CorpusDomains(root=None, archives=tmp_path / "nowhere").check()


def equal_twins(tmp_path):
    """Two folders with equal names, sizes and times, and other text."""
    for name, text in (("a", "apples and pears"), ("b", "numbers and odds")):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "x.txt"
        path.write_text(text)
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return tmp_path / "a", tmp_path / "b"


def test_equal_names_sizes_and_times_do_not_make_equal_text(tmp_path):
    a, b = equal_twins(tmp_path)
    assert files(a).fingerprint() != files(b).fingerprint()
    (b / "x.txt").write_bytes((a / "x.txt").read_bytes())
    assert files(a).fingerprint() == files(b).fingerprint()


def test_a_file_changed_in_place_with_its_time_set_back_is_another(tmp_path):
    a, _ = equal_twins(tmp_path)
    before = files(a).fingerprint()
    (a / "x.txt").write_text("apples and plums")
    os.utime(a / "x.txt", (1_700_000_000, 1_700_000_000))
    assert files(a).fingerprint() != before


def test_domains_that_change_places_are_another_text(tmp_path):
    for name, text in (("x", "one text"), ("y", "another text")):
        (tmp_path / f"{name}.txt").write_text(text)
    before = files(tmp_path).fingerprint()
    (tmp_path / "x.txt").write_text("another text")
    (tmp_path / "y.txt").write_text("one text")
    assert files(tmp_path).fingerprint() != before


def test_links_to_folders_and_files_are_followed(tmp_path):
    write_jsonl(tmp_path / "elsewhere" / "more" / "a.jsonl", ["one", "two"])
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    write_jsonl(tmp_path / "b.jsonl", ["three", "four"])
    (folder / "file.jsonl").symlink_to(tmp_path / "b.jsonl")
    source = files(folder)
    assert source.domains == ("file", "linked")
    texts = [*source.documents("linked", "train"), *source.documents("linked", "validation")]
    assert sorted(texts) == ["one", "two"]


def test_suffixes_may_be_written_large(tmp_path):
    write_jsonl(tmp_path / "A.JSONL", ["one"])
    (tmp_path / "B.TXT").write_text("two")
    source = files(tmp_path)
    assert source.domains == ("A", "B")
    assert [*source.documents("A", "train"), *source.documents("A", "validation")] == ["one"]


@pytest.mark.parametrize("name", ["valid", "val", "dev"])
def test_other_names_of_validation_folders(tmp_path, name):
    write_jsonl(tmp_path / "train" / "x.jsonl", ["a"])
    write_jsonl(tmp_path / name / "x.jsonl", ["b"])
    assert files(tmp_path).domains == ("x",)
    assert list(files(tmp_path).documents("x", "validation")) == ["b"]


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_parquet_strings_of_every_kind_are_read(tmp_path, kind):
    write_parquet(tmp_path / "x.parquet", text=pa.array(["one", None, "two", "one"]).cast(kind))
    source = files(tmp_path)
    source.check()
    assert sorted([*source.documents("x", "train"), *source.documents("x", "validation")]) == ["one", "one", "two"]


def test_a_null_text_is_no_document_in_jsonl_as_in_parquet(tmp_path, caplog):
    (tmp_path / "x.jsonl").write_text('{"text": null}\n{"text": "one"}\n')
    write_parquet(tmp_path / "y.parquet", text=[None, "one", None])
    source = files(tmp_path)
    with caplog.at_level("INFO"):
        for domain in ("x", "y"):
            assert [*source.documents(domain, "train"), *source.documents(domain, "validation")] == ["one"]
    assert f"{tmp_path}/x.jsonl: 1 null texts are left out" in caplog.messages
    assert f"{tmp_path}/y.parquet: 2 null texts are left out" in caplog.messages
    assert len(caplog.messages) == 2


def splits_as_files(path):
    for name in ("train", "validation", "test"):
        write_jsonl(path / f"{name}.jsonl", [name])


def splits_within_a_domain(path):
    for name in ("train", "test"):
        write_jsonl(path / "posts" / f"{name}.jsonl", [name])


def dangling(path):
    (path / "a.txt").symlink_to(path / "nowhere.txt")


def circular(path):
    (path / "a").mkdir()
    (path / "a" / "b").symlink_to(path)


def two_validations(path):
    for name in ("train", "valid", "dev"):
        write_jsonl(path / name / "x.jsonl", ["x"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (splits_as_files, r"holds train and test, which are splits and no domains"),
        (splits_within_a_domain, r"posts holds train and test"),
        (dangling, r"a.txt is a link to .*nowhere.txt, which is not there"),
        (circular, r"b is a link to a folder that holds it"),
        (two_validations, r"more than one folder of a split"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_would_be_read_wrongly_is_refused(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        check_and_read(files(tmp_path))
    assert "\n" not in str(error.value)


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff.txt", "w") as file:
        file.write("x")
    with pytest.raises(UserError, match=r"not UTF-8"):
        files(tmp_path).check()


def test_domains_named_by_numbers_may_be_given_as_numbers(tmp_path):
    for year in (2020, 2021):
        (tmp_path / f"{year}.txt").write_text(str(year))
    assert files(tmp_path).select([2021]).domains == ("2021",)
