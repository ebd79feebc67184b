"""A store of experts holds what the model held, and is refused if it holds anything else."""

import errno
import mmap
import os
import resource
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from moe_toy.errors import UserError
from moe_toy.offload.layout import PAGE
from moe_toy.offload.readers import FileReader, HostReader, SlowReader, open_reader
from moe_toy.offload.store import open_store, write_store
from tests.offload.conftest import decode_offloaded, decode_resident


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["disk", "page_cache", "host"])
def test_rows_hold_the_matrices(make_model, tmp_path, dtype, kind):
    model = make_model(num_layers=3, num_leading_dense_layers=1)
    store = write_store(model, tmp_path / "experts.bin", dtype)
    layout = store.layout
    assert store.num_bytes == store.path.stat().st_size == PAGE + layout.num_rows * layout.row_bytes
    assert layout.row_bytes % PAGE == 0
    assert open_store(store.path, model) == store
    memory = mmap.mmap(-1, layout.row_bytes)
    reader = open_reader(store, kind)
    for number, block in enumerate(model.blocks[1:]):
        for expert in range(layout.num_experts):
            reader.read(number * layout.num_experts + expert, memoryview(memory))
            gate_up, down = layout.matrices(memory, 0)
            assert torch.equal(gate_up, block.ffn.experts.gate_up[expert].to(gate_up.dtype))
            assert torch.equal(down, block.ffn.experts.down[expert].to(down.dtype))
    reader.close()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_slots_may_be_a_tensor_of_bytes(make_model, tokens, tmp_path, dtype):
    """As on a GPU, but for its stream."""
    model = make_model().to(getattr(torch, dtype))
    store = write_store(model, tmp_path / "experts.bin", dtype)
    resident = decode_resident(model, tokens)
    decoded = decode_offloaded(model, store, tokens, 5, kind="host", threads=2, device=torch.device("cpu"))
    assert torch.equal(decoded.logits, resident.logits)


class Stream:
    """Notes what is done with it."""

    def __init__(self, done: list[str]) -> None:
        self.done = done
        self.wait_stream = lambda other: done.append(f"wait for {other}")
        self.record_event = lambda: SimpleNamespace(synchronize=lambda: done.append("copied"))


def test_a_copy_to_a_gpu_waits_for_what_is_computed_and_is_waited_for(store, monkeypatch):
    done = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(done))
    monkeypatch.setattr(torch.cuda, "default_stream", lambda device: "computing")
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext(done.append("on its stream")))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda rows: (done.append("pinned"), rows)[1])
    reader = open_reader(store, "host", device=torch.device("cuda"))
    slot = torch.zeros(store.layout.row_bytes, dtype=torch.uint8)
    reader.read(3, slot)
    assert done == ["pinned", "wait for computing", "on its stream", "copied"]
    assert slot.numpy().tobytes() == store.path.read_bytes()[store.offset(3) : store.offset(4)]


def test_readers_by_name(store):
    assert type(open_reader(store, "disk")) is FileReader
    assert type(open_reader(store, "host")) is HostReader
    assert type(open_reader(store, "page_cache", delay=1e-3)) is SlowReader


@pytest.mark.parametrize(
    ("place", "complaint"),
    [(0, "no store of experts"), (30, "no store of experts|damaged"), (PAGE + 5, "damaged"), (-1, "damaged")],
    ids=["magic", "header", "first row", "last byte"],
)
def test_a_changed_byte_is_refused(store, model, place, complaint):
    content = bytearray(store.path.read_bytes())
    content[place] ^= 0xFF
    store.path.write_bytes(content)
    with pytest.raises(UserError, match=complaint) as error:
        open_store(store.path, model)
    assert str(store.path) in str(error.value)
    assert "remove it" in str(error.value)


@pytest.mark.parametrize("size", [0, 100, PAGE, -1, -PAGE])
def test_a_torn_file_is_refused(store, size):
    os.truncate(store.path, size % store.num_bytes)
    with pytest.raises(UserError, match=r"torn|no store"):
        open_store(store.path)


def test_the_store_of_another_model_is_refused(store, make_model, model):
    other = make_model()
    with torch.no_grad():
        other.blocks[1].ffn.experts.down[3, 0, 0] += 1
    open_store(store.path, model)
    with pytest.raises(UserError, match="another model"):
        open_store(store.path, other)


def test_a_file_that_is_missing_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        open_store(tmp_path / "none.bin")


def test_a_full_disk_leaves_nothing(model, tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_store(model, tmp_path / "experts.bin", "float32")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_may_not_grow_leaves_nothing(model, tmp_path):
    """In the middle of a row, by a limit of the system."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * PAGE + 100, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_store(model, tmp_path / "experts.bin", "float32")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_an_older_store_survives_a_full_disk(model, store, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_store(model, store.path, "float32")
    monkeypatch.undo()
    assert open_store(store.path, model) == store


def test_a_file_system_without_direct_reads_is_refused(store, monkeypatch):
    opened = os.open

    def refuse(path, flags, *more):
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
        return opened(path, flags, *more)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match="page cache"):
        open_reader(store, "disk")
