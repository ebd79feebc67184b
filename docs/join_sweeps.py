"""Seeds of one sweep that several machines trained, in one table: `python docs/join_sweeps.py OUT SWEEP_DIRECTORY ...`.

`evaluate.py target=sweep target.path=OUT` then judges all of them. OUT gets results.parquet alone: no curves are drawn.
"""

import sys
from pathlib import Path

import pandas as pd

from moe_toy.checks.mistakes import report_user_errors
from moe_toy.errors import UserError
from moe_toy.evaluation.run_text import recorded_fingerprint
from moe_toy.files.atomic import save_atomically
from moe_toy.report.sweep_files import COLUMNS, RESULTS, read_sweep
from moe_toy.runs.run_directory import TEXT

SAME = ["step", *(column for column in COLUMNS if column not in ("arm", "seed", "run_dir"))]
"""What seeds of an arm share: the length of their training, where it was logged, and the sizes of their model."""


def join(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Rows of all tables; raises `UserError` where two hold the same run, or an arm is another model or
    was trained for longer."""
    joined = pd.concat(tables.values(), ignore_index=True)
    twice = joined[joined.duplicated(["arm", "seed"])]
    if len(twice):
        run = twice.iloc[0]
        raise UserError(f"{' and '.join(tables)}: two of them hold arm {run.arm} of seed {run.seed}; give one of them")
    for column in joined.columns.intersection(SAME):
        values = joined.groupby("arm")[column].nunique()
        if (values > 1).any():
            arm = values.idxmax()
            raise UserError(f"{' and '.join(tables)}: {column} of arm {arm} differs; give seeds of one sweep")
    return joined


def check_text(sweeps: list[Path]) -> None:
    """Raise `UserError` where runs say that they were trained on different text; tables alone do not tell."""
    seen: dict[str, Path] = {}
    for run in (path.parent for sweep in sweeps for path in sorted(sweep.glob(f"*/{TEXT}"))):
        seen.setdefault(recorded_fingerprint(run), run)
    if len(seen) > 1:
        (one, run), (other, another) = list(seen.items())[:2]
        raise UserError(
            f"{run} and {another} were trained on different text (fingerprints {one} and {other}); give seeds of one "
            "sweep"
        )


def main(arguments: list[str]) -> None:
    with report_user_errors("OUT"):
        if len(arguments) < 3:
            raise UserError("give a directory to write to and the directories of at least two sweeps")
        out, *sweeps = map(Path, arguments)
        check_text(sweeps)
        joined = join({str(sweep): read_sweep(sweep) for sweep in sweeps})
        out.mkdir(parents=True, exist_ok=True)
        with save_atomically(out / RESULTS) as part:
            joined.to_parquet(part, index=False)


if __name__ == "__main__":
    main(sys.argv[1:])
