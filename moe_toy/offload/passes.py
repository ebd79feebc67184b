"""All arms in turn, there and back again, sequence by sequence, kept so that a broken measurement goes on."""

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


class Pass(NamedTuple):
    sequence: int
    name: str
    number: int

    def __str__(self) -> str:
        return f"{self.name}, {'back' if self.number % 2 else 'there'}"


def run_passes(
    arms: Sequence[Callable[[int], pd.DataFrame]], sequences: Sequence[str], folder: Path, activity: str
) -> pd.DataFrame:
    """The rows of all arms, each called with the number of a sequence, with their `pass`. All arms of a sequence follow
    one another, so that the machine is the same for all of them. Passes that are in `folder` are not run again."""
    passes = [Pass(i, name, number) for i, name in enumerate(sequences) for number in range(PASSES)]
    parts = []
    for step in with_progress(passes, activity):
        path = folder / f"{step.sequence:04}-{step.number}.parquet"
        if not path.exists():
            table = pd.concat([run(step.sequence) for run in arms[:: 1 - 2 * (step.number % 2)]])
            with save_atomically(path) as part:
                table.assign(**{"pass": step.number}).to_parquet(part, index=False)
        parts.append(pd.read_parquet(path))
    return pd.concat(parts, ignore_index=True)


def step_rows(
    costs: Float[np.ndarray, "step column"], columns: Sequence[str], domain: str, sequence: int
) -> pd.DataFrame:
    """A row per step of a sequence, of which 0 is the prompt."""
    table = pd.DataFrame(costs, columns=list(columns))
    return table.assign(domain=domain, sequence=sequence, step=np.arange(len(table)))
