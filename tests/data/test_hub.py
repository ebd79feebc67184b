"""HubDomains, with local files standing in for the hub."""

import json
import logging

import pytest

from moe_toy.data.hub import HubDomains
from moe_toy.errors import UserError


@pytest.fixture
def jsonl(tmp_path):
    path = tmp_path / "remote.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"document {i}", "meta": i}) for i in range(100)))
    return path


def hub(root, path, *, max_documents=None, max_bytes=None, text_column="text", fraction=0.3):
    return HubDomains(
        root=root,
        datasets={"near": {"path": "json", "data_files": str(path)}},
        text_column=text_column,
        max_documents=max_documents,
        max_bytes=max_bytes,
        validation_fraction=fraction,
    )


def texts(source):
    return sorted([*source.documents("near", "train"), *source.documents("near", "validation")])


@pytest.mark.parametrize(
    ("limits", "number"),
    [({}, 100), ({"max_documents": 40}, 40), ({"max_bytes": 105}, 11)],
    ids=["all", "documents", "bytes"],
)
def test_the_head_is_kept_and_split(tmp_path, jsonl, limits, number):
    source = hub(tmp_path, jsonl, **limits)
    source.prepare()
    assert texts(source) == sorted(f"document {i}" for i in range(number))


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9], ids=["validation", "training"])
def test_a_split_that_no_document_fell_to_gets_one(tmp_path, jsonl, fraction, caplog):
    source = hub(tmp_path, jsonl, max_documents=3, fraction=fraction)
    with caplog.at_level(logging.INFO):
        source.prepare()
    numbers = [len(list(source.documents("near", split))) for split in ("train", "validation")]
    assert (sorted(numbers), texts(source)) == ([1, 2], [f"document {i}" for i in range(3)])
    assert "near: one document becomes" in caplog.text
    assert sorted(path.suffix for path in source._domain_folder("near").iterdir()) == ["", ".parquet", ".parquet"]


def test_all_is_validation_text_where_that_is_asked_for(tmp_path, jsonl):
    source = hub(tmp_path, jsonl, max_documents=3, fraction=1)
    source.prepare()
    assert not list(source.documents("near", "train"))
    assert len(list(source.documents("near", "validation"))) == 3


def test_it_is_fetched_once(tmp_path, jsonl):
    source = hub(tmp_path, jsonl)
    source.prepare()
    before = source.fingerprint()
    jsonl.unlink()
    again = hub(tmp_path, jsonl)
    again.prepare()
    assert (len(texts(again)), again.fingerprint()) == (100, before)


def test_what_is_there_is_read_where_nothing_may_be_written(tmp_path, jsonl, monkeypatch):
    hub(tmp_path, jsonl).prepare()

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("moe_toy.data.hub.FileLock", refuse)
    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    hub(tmp_path, jsonl).prepare()
    assert len(texts(hub(tmp_path, jsonl))) == 100


def test_another_request_is_fetched_anew(tmp_path, jsonl):
    few, all_ = hub(tmp_path, jsonl, max_documents=5), hub(tmp_path, jsonl)
    few.prepare()
    all_.prepare()
    assert few.fingerprint() != all_.fingerprint()
    assert len(texts(all_)) == 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "nowhere.jsonl"}, r"near: cannot read .*check the name and the network"),
        ({"text_column": "body"}, r"no column 'body', only text, meta"),
    ],
    ids=["unreachable", "column"],
)
def test_what_cannot_be_had_is_one_line(tmp_path, jsonl, change, message):
    with pytest.raises(UserError, match=message) as error:
        hub(**{"root": tmp_path, "path": jsonl, **change}).prepare()
    assert "\n" not in str(error.value)


def test_a_failed_fetch_can_be_repeated(tmp_path, jsonl):
    with pytest.raises(UserError):
        hub(tmp_path, jsonl, text_column="body").prepare()
    source = hub(tmp_path, jsonl)
    source.prepare()
    assert len(texts(source)) == 100


def test_domains_are_called_what_files_and_other_keys_can_call_them(tmp_path):
    options = {"root": tmp_path, "text_column": "text", "max_documents": 1, "max_bytes": None}
    years = HubDomains(datasets={2020: {"path": "json"}, 2021: {"path": "json"}}, validation_fraction=0.1, **options)
    assert years.select([2021]).domains == ("2021",)
    slashed = HubDomains(datasets={"a/b": {"path": "json"}}, validation_fraction=0.1, **options)
    with pytest.raises(UserError, match=r"data\.source\.datasets: a/b cannot be part of .*; call the domain a_b"):
        slashed.check()
