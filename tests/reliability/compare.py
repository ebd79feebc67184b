"""Whether two runs ended alike, to the last bit."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

TIMING = ["train/tokens_per_s"]


def assert_same_end(one: Path, other: Path, but_for: Sequence[str] = ()) -> None:
    """Weights, optimiser, balance buffers, schedules, callbacks, counts of training batches, and every logged row
    `but_for` some columns."""
    ends = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (one, other)]
    for end in ends:
        loops = end["loops"]["fit_loop"].items()
        end["loops"] = {key: value for key, value in loops if ".val_loop." not in key and key != "state_dict"}
        del end["loggers"]
    assert_identical(*ends)
    rows = [pd.read_csv(run / "metrics.csv").drop(columns=[*TIMING, *but_for], errors="ignore") for run in (one, other)]
    pd.testing.assert_frame_equal(*rows, check_exact=True)


def assert_identical(one: object, other: object, place: str = "") -> None:
    assert type(one) is type(other), place
    if isinstance(one, Tensor):
        assert torch.equal(one, other), place
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_identical(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_identical(a, b, f"{place}[{index}]")
    else:
        assert one == other, place
