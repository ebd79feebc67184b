"""Files that somebody damaged or made to harm are refused in one line, with bounded memory and time."""

import json
import random
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from moe_toy.data import readers
from moe_toy.errors import UserError
from tests.model.conftest import MODEL, MOE
from tests.reliability.fuzzing import bounds, finding, mutate
from tests.reliability.reading import READERS, write_tokenizer

FINDINGS = sorted((Path(__file__).parent / "findings").iterdir())  # named <what>-<reader>


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused(name, tmp_path):
    write, read = READERS[name]
    path, draw = tmp_path / name, random.Random(name)
    write(path)
    original = path.read_bytes()
    assert finding(read, path) is None
    for _ in range(100):
        damaged = mutate(original, draw)
        path.write_bytes(damaged)
        assert finding(read, path) is None, repr(damaged)


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: path.name)
def test_what_fuzzing_found_is_read_or_refused(path, tmp_path):
    name = path.name.partition("-")[2]
    copy = shutil.copy(path, tmp_path / name)
    assert finding(READERS[name][1], copy) is None


def numbers_for_text(path):
    pq.write_table(pa.table({"text": [1, 2]}), path)


def another_column(path):
    pq.write_table(pa.table({"body": ["a"]}), path)


def declares_ten_gigabytes(path):
    header = json.dumps({"expert_ids": {"dtype": "U8", "shape": [10**10], "data_offsets": [0, 10**10]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def declares_a_long_header(path):
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")


def vocabulary_with_a_huge_id(path):
    write_tokenizer(path)
    content = json.loads(path.read_text())
    content["model"]["vocab"]["a"] = 2**31
    path.write_text(json.dumps(content))


def numbers_that_are_declared_only(path):
    header = {"descr": "<i4", "fortran_order": False, "shape": (10**9, 2, 2)}
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("routed_experts.npy", "token_ids.npy"):
            with archive.open(name, "w") as part:
                np.lib.format.write_array_header_1_0(part, header)


def packed_with_a_dictionary_of_four_gigabytes(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("token_ids.npy", b"")
    properties = b"\x5d" + struct.pack("<I", 2**23)
    assert properties in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(properties, b"\x5d" + struct.pack("<I", 2**32 - 1)))


def parts_that_are_no_arrays(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("routed_experts.npy", b"no array")
        archive.writestr("token_ids.npy", b"nor this")


def lines_of(text: str):
    return lambda path: path.write_text(text + "\n")


def saved(content):
    return lambda path: torch.save(content, path)


def beside_a_state(content):
    config = {"model": MODEL | {"moe": MOE}}
    return saved({"state_dict": {}, "hyper_parameters": config, "optimizer_states": content})


def many_views_of_one():
    tensor = torch.zeros(2**20)
    return [tensor[:] for _ in range(1000)]


def doubled(container: type):
    content = container([0])
    for _ in range(30):
        content = container([content, content])
    return content


def bare_storage():
    return torch.storage.TypedStorage(wrap_storage=torch.UntypedStorage(8), dtype=torch.float32, _internal=True)


def calls(function, *arguments):
    class Call:
        def __reduce__(self):
            return function, arguments

    return Call()


def within_itself():
    content = []
    content.append(content)
    return content


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(many_views_of_one(), id="views of 4 GB in 4 MB"),
        pytest.param(doubled(list), id="lists of a billion"),
        pytest.param(doubled(tuple), id="tuples of a billion"),
        pytest.param(within_itself(), id="a list within itself"),
    ],
)
def test_a_checkpoint_takes_no_more_memory_than_it_is_long(content, tmp_path):
    beside_a_state(content)(tmp_path / "plain.ckpt")
    assert finding(READERS["plain.ckpt"][1], tmp_path / "plain.ckpt") is None


@pytest.mark.parametrize(
    ("name", "write"),
    [
        pytest.param("a.parquet", numbers_for_text, id="numbers for text"),
        pytest.param("a.parquet", another_column, id="another column"),
        pytest.param("a.jsonl", lines_of("[" * 100_000), id="deep nesting"),
        pytest.param("a.jsonl", lines_of('{"text": ' + "9" * 5000 + "}"), id="a number of 5000 digits"),
        pytest.param("a.jsonl", lines_of('{"text": NaN}'), id="NaN for text"),
        pytest.param("a.safetensors", declares_ten_gigabytes, id="10 GB declared"),
        pytest.param("a.safetensors", declares_a_long_header, id="a header of 4 exabytes"),
        pytest.param("routed.npz", numbers_that_are_declared_only, id="arrays of 16 GB declared"),
        pytest.param("routed.npz", packed_with_a_dictionary_of_four_gigabytes, id="a dictionary of 4 GB"),
        pytest.param("routed.npz", parts_that_are_no_arrays, id="bytes for arrays"),
        pytest.param("plain.ckpt", saved({"state_dict": [1]}), id="a list for the state"),
        pytest.param("plain.ckpt", saved({"state_dict": {"a": 1}}), id="a number for a tensor"),
        pytest.param("plain.ckpt", saved({"state_dict": {}, "hyper_parameters": {"model": 3}}), id="no config"),
        pytest.param("plain.ckpt", saved({"state_dict": {"a": torch.eye(2).to_sparse_coo()}}), id="a sparse tensor"),
        pytest.param("plain.ckpt", saved({"state_dict": {"a": torch.ones(2, device="meta")}}), id="no data"),
        pytest.param("plain.ckpt", beside_a_state(bare_storage()), id="a bare storage"),
        pytest.param("plain.ckpt", beside_a_state(calls(bytearray, 10**10)), id="10 GB of zeros"),
        pytest.param("plain.ckpt", beside_a_state(calls(torch.Tensor, 10**10)), id="a tensor of 40 GB"),
        pytest.param("tokenizer.json", lines_of("{}"), id="no tokenizer"),
        pytest.param("tokenizer.json", vocabulary_with_a_huge_id, id="a huge id"),
    ],
)
def test_hostile_files_are_refused(name, write, tmp_path):
    read, path = READERS[name][1], tmp_path / name
    write(path)
    assert finding(read, path) is None
    with pytest.raises(UserError):
        read(path)


def test_a_long_text_named_by_many_rows_takes_the_memory_of_few(tmp_path):
    """Three gigabytes of text in a file of less than a kilobyte."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 150), pa.array(["x" * 20_000_000]))
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", compression="zstd", store_schema=False)
    with bounds():
        rows = readers.read_documents(tmp_path / "a.parquet", 100)
        assert [len(next(rows)) for _ in range(5)] == [20_000_000] * 5


def test_a_file_without_line_ends_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "LONGEST_LINE", 1000)
    (tmp_path / "a.txt").write_text("x" * 1001)
    with pytest.raises(UserError, match="the line at byte 0 has more than 1000 bytes"):
        READERS["a.txt"][1](tmp_path / "a.txt")


def test_tokens_damaged_by_hand_stop_the_run_and_lost_ones_are_made_anew(run, tmp_path):
    steps = ["trainer.max_steps=1", "callbacks=none", f"data.root={tmp_path / 'cache'}"]
    run(tmp_path / "first", *steps)
    (tokens,) = (tmp_path / "cache" / "tokens").glob("*/fruit-train.uint16")
    damaged = bytearray(tokens.read_bytes())
    damaged[100] ^= 1
    tokens.write_bytes(damaged)
    with pytest.raises(UserError, match=rf"{tokens} is damaged; remove its folder"):
        run(tmp_path / "second", *steps)
    tokens.unlink()
    run(tmp_path / "third", *steps)
