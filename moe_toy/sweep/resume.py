"""What an interrupted run left that can be used: its last good checkpoint, and its metrics up to there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from moe_toy.errors import UserError
from moe_toy.training.checkpoint import load_checkpoint

log = logging.getLogger(__name__)
METRICS, EARLIER = "metrics.csv", "metrics.earlier.csv"


def last_good_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint of a run directory that can be read."""
    paths = (directory / "checkpoints").glob("*.ckpt")
    for path in sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.stem == "last"), reverse=True):
        try:
            load_checkpoint(path)
        except UserError as error:
            log.warning("%s", error)
        else:
            return path
    return None


@contextmanager
def earlier_metrics(directory: Path, checkpoint: Path | None) -> Iterator[None]:
    """Keep the rows of `metrics.csv` up to `checkpoint`: the logger starts that file anew, and gets them back after."""
    earlier = directory / EARLIER
    if checkpoint is None:
        earlier.unlink(missing_ok=True)
    tables = [pd.read_csv(path) for path in (earlier, directory / METRICS) if checkpoint and path.exists()]
    if tables:
        rows = pd.concat(tables)
        rows = rows[rows.step <= load_checkpoint(checkpoint)["global_step"]]
        rows.drop_duplicates().to_csv(f"{earlier}.part", index=False)
        Path(f"{earlier}.part").replace(earlier)
    yield
    if tables:
        parts = [pd.read_csv(path) for path in (earlier, directory / METRICS) if path.exists()]
        pd.concat(parts).to_csv(directory / f"{METRICS}.part", index=False)
        (directory / f"{METRICS}.part").replace(directory / METRICS)
        earlier.unlink()
