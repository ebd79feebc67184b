"""All arms in turn, there and back again, each kept when it is done, so that a broken measurement goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from moe_toy.files.atomic import save_atomically
from moe_toy.files.progress import with_progress

RESIDENT, CALIBRATION = "resident", "calibration"
"""Stand for a policy in the tables."""
PASSES = 2
"""There and back: what drifts meets all arms alike."""


class Cell(NamedTuple):
    """A part of a pass."""

    name: str
    run: Callable[[], pd.DataFrame]

    def __str__(self) -> str:
        return self.name


def run_passes(cells: Sequence[Cell], folder: Path, activity: str) -> pd.DataFrame:
    """The rows of all cells, with their `pass`. Those that are in `folder` are not run again."""
    order = [(number, cell) for number in range(PASSES) for cell in cells[:: 1 - 2 * (number % 2)]]
    parts = []
    for place, cell in enumerate(with_progress([cell for _, cell in order], activity)):
        path = folder / f"{place:03}.parquet"
        if not path.exists():
            table = cell.run()
            with save_atomically(path) as part:
                table.to_parquet(part, index=False)
        parts.append(pd.read_parquet(path).assign(**{"pass": order[place][0]}))
    return pd.concat(parts, ignore_index=True)


def step_rows(
    costs: Float[np.ndarray, "step column"], columns: Sequence[str], domain: str, sequence: int
) -> pd.DataFrame:
    """A row per step of a sequence, of which 0 is the prompt."""
    table = pd.DataFrame(costs, columns=list(columns))
    return table.assign(domain=domain, sequence=sequence, step=np.arange(len(table)))
