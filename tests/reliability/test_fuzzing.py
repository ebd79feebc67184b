"""What the fuzzer would let pass, it could not find."""

import mmap
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from moe_toy.errors import UserError
from tests.reliability import fuzz, fuzzing
from tests.reliability.fuzzing import finding
from tests.reliability.reading import READERS

PATH = Path("some file")
MUCH = 2 * fuzzing.EXTRA_MEMORY


def hidden(work):
    """A reader that takes whatever goes wrong for a fault of the file."""

    def read(path):
        try:
            work()
        except Exception as error:
            raise UserError(f"{path} cannot be read; write it again") from error

    return read


@pytest.mark.parametrize(
    "allocate",
    [
        pytest.param(lambda: bytearray(MUCH), id="python"),
        pytest.param(lambda: np.empty(MUCH, np.uint8), id="numpy"),
        pytest.param(lambda: torch.empty(MUCH, dtype=torch.uint8), id="torch"),
        pytest.param(lambda: pa.allocate_buffer(MUCH), id="arrow"),
        pytest.param(lambda: mmap.mmap(-1, MUCH), id="system"),
    ],
)
def test_memory_that_only_the_limit_refused_is_a_finding(allocate):
    assert finding(hidden(allocate), PATH) is not None


def test_time_is_a_finding_also_where_every_error_is_a_users(monkeypatch):
    monkeypatch.setattr(fuzzing, "SECONDS", 1)
    assert isinstance(finding(hidden(lambda: time.sleep(3)), PATH), fuzzing.TooSlowError)


def test_a_refusal_in_one_line_is_none():
    assert finding(hidden(lambda: int("a")), PATH) is None


@pytest.mark.parametrize(("works", "code"), [(True, 0), (False, 1)])
def test_a_finding_is_kept_and_makes_the_exit_code_1(works, code, tmp_path, monkeypatch, capfd):
    def read(path):
        if not works and path.read_bytes() != b"valid":
            raise KeyError

    monkeypatch.setitem(READERS, "a.txt", (lambda path: path.write_bytes(b"valid"), read))
    monkeypatch.setattr("sys.argv", ["fuzz", "--seconds", "0.1", "--keep", str(tmp_path), "a.txt"])
    with pytest.raises(SystemExit) as end:
        fuzz.main()
    assert end.value.code == code
    assert [path.name for path in tmp_path.iterdir()] == ["1-a.txt"] * code
    assert "a.txt: " in capfd.readouterr().out
