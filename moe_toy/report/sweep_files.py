"""What a sweep leaves on disk, as its report reads it: one table, and what each run logged."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from moe_toy.errors import UserError
from moe_toy.files.reading import UnreadableError, reading
from moe_toy.runs.curve_keys import CACHE, CONSISTENCY, CORRELATION, LOAD, ROUTER, SPECIALIZATION, present_name
from moe_toy.runs.run_directory import RunDirectory

if TYPE_CHECKING:
    import pandas as pd

RESULTS = "results.parquet"
COLUMNS = ("arm", "seed", "run_dir", "num_experts", "top_k")
COLUMNS += ("total_parameters", "active_parameters", "flops_per_token")
"""What no row of a sweep lacks."""
METRIC = re.compile(
    "|".join(f"{part}/" for part in ("val", CONSISTENCY, CACHE, LOAD, SPECIALIZATION, CORRELATION, ROUTER))
)


def read_sweep(directory: Path) -> pd.DataFrame:
    """The results of a sweep's finished arms: what `COLUMNS` names, and what they logged."""
    import pandas as pd  # half a second

    try:
        with reading(directory / RESULTS):
            table = pd.read_parquet(directory / RESULTS).rename(columns=present_name)
        if missing := [name for name in COLUMNS if name not in table]:
            raise ValueError(f"it has no column {missing[0]}")
        if table.empty:
            raise ValueError("it holds no arm")
        if (twice := table.duplicated(["arm", "seed"])).any():
            run = table[twice].iloc[0]
            raise ValueError(f"it holds arm {run.arm} of seed {run.seed} twice")
        numbers = [key for key in table if key in ("seed", *COLUMNS[3:]) or METRIC.match(key)]
        return table.assign(**{key: pd.to_numeric(table[key]) for key in numbers}).copy()  # in one block, for speed
    except FileNotFoundError:
        raise UserError(f"{directory} holds no {RESULTS}; give the directory of a sweep with a finished arm") from None
    except UnreadableError:
        raise
    except (OSError, ValueError, TypeError) as error:  # what pyarrow and pandas raise on damage
        raise UserError(
            f"{directory / RESULTS} is damaged ({' '.join(str(error).split())}); remove it and run the sweep's command "
            "again"
        ) from None


def read_metrics(run_dir: Path) -> pd.DataFrame | None:
    """All that one run logged; None where it had no such logger."""
    import pandas as pd  # half a second

    path = RunDirectory(run_dir).metrics
    with reading(path):
        try:
            metrics = pd.read_csv(path, dtype=float)
            if metrics.empty or "step" not in metrics:
                raise ValueError("it holds no steps")
        except FileNotFoundError:
            return None
        except ValueError as error:  # what pandas raises on damage
            raise UserError(
                f"{path} is damaged ({' '.join(str(error).split())}); remove its directory and run the sweep's command "
                "again to train this arm anew"
            ) from None
    return metrics.rename(columns=present_name)
