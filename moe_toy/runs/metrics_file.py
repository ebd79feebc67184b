"""metrics.csv, which a continued run goes on with as if it had never stopped."""

import csv
import logging
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment

from moe_toy.errors import UserError
from moe_toy.files.atomic import save_atomically

log = logging.getLogger(__name__)
STEP = "step"
EPOCH = "epoch"
"""What Lightning adds to what is logged; a run counts steps."""


class MetricsFile(CSVLogger):
    """`metrics.csv` in `save_dir`. `keep_rows` of an existing file are kept, the rest is dropped; null: a new file.

    Checkpoints carry the number of rows written before them. So whatever was logged between a checkpoint and a
    crash, also half a row, goes away when the run continues from it.
    """

    def __init__(self, save_dir: str, keep_rows: int | None = None) -> None:
        super().__init__(save_dir, name="", version="")
        self.keep_rows = keep_rows

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if self._experiment is None:
            Path(self.save_dir).mkdir(parents=True, exist_ok=True)
            self._experiment = RowWriter(self.log_dir, self.keep_rows)
        return self._experiment

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        super().log_metrics({key: value for key, value in metrics.items() if key != EPOCH}, step)

    @property
    def num_rows(self) -> int:
        """Rows on disk, once all that was logged is."""
        self.save()
        return self.experiment.num_rows


class RowWriter(ExperimentWriter):
    def __init__(self, log_dir: str, keep_rows: int | None) -> None:
        self.keep_rows, self.num_rows = keep_rows, 0
        super().__init__(log_dir)

    def save(self) -> None:
        self.num_rows += len(self.metrics)
        super().save()

    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        if self.keep_rows is None:
            path.unlink(missing_ok=True)
            return
        rows, columns = whole_rows(path, self.keep_rows)
        self.metrics_keys = sorted(columns)  # as Lightning writes the rows that follow
        self.num_rows = len(rows)
        if self.num_rows < self.keep_rows:
            log.warning("%s has only %d of %d rows; the others are lost", path, self.num_rows, self.keep_rows)
        if self.metrics_keys:
            self._write(rows, self.metrics_keys)
        else:
            path.unlink(missing_ok=True)

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        with open(self.metrics_file_path, newline="") as file:
            rows = list(csv.DictReader(file))
        self._write(rows, fieldnames)

    def _write(self, rows: list[dict[str, str]], fieldnames: list[str]) -> None:
        with save_atomically(Path(self.metrics_file_path)) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames)
            writer.writeheader()
            writer.writerows(rows)


def whole_rows(path: Path, at_most: int) -> tuple[list[dict[str, str]], list[str]]:
    """The first rows of a metrics.csv, if it is there, but for a last one without an end; and its columns."""
    try:
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        reader = csv.DictReader(line for line in lines if line.endswith("\n"))
        columns = list(reader.fieldnames or [])
        rows = [row for _, row in zip(range(at_most), reader, strict=False)]
        if not lines or STEP in columns:
            return rows, columns
        reason = f"no column is called {STEP}"
    except (UnicodeDecodeError, csv.Error) as error:
        reason = error
    raise UserError(f"{path} is not what the run wrote ({reason}); restore it, or remove it to go on without its rows")
