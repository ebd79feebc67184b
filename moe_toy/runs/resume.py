"""Where a run begins: anew, or from a checkpoint; and that it is alone in its directory."""

import logging
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from moe_toy.errors import UserError
from moe_toy.files.lock import lock_directory
from moe_toy.runs.checkpoint import AUTO, Checkpoint
from moe_toy.runs.metrics_file import MetricsFile
from moe_toy.runs.run_directory import RunDirectory

log = logging.getLogger(__name__)


def starting_point(ckpt_path: str | None, run: RunDirectory) -> Checkpoint | None:
    """The checkpoint to start from. `auto` is the newest undamaged one of `run`, or none if it has none."""
    if ckpt_path == AUTO:
        found = Checkpoint.open_newest(run, AUTO)
        log.info("continuing from %s", found.path) if found else log.info("no checkpoint in %s: a new run", run.path)
        return found
    start = None if ckpt_path is None else Checkpoint.open_to_continue(ckpt_path)
    is_its_own = start is not None and run.owns(start.path)
    if not is_its_own and rank_zero_only.rank == 0 and run.candidates():
        raise UserError(
            f"run_dir: {run.path} holds a run already; continue it with ckpt_path=auto, or choose another hydra.run.dir"
        )
    return start


def logger_options(start: Checkpoint | None, run: RunDirectory) -> dict[type[Logger], dict[str, Any]]:
    """What makes loggers of a kind go on with the curves of the run that is continued, if it is continued in its
    directory."""
    if start is None or not run.owns(start.path):
        return {}
    names = {"csv_rows": (MetricsFile, "keep_rows"), "wandb_id": (WandbLogger, "id")}
    return {kind: {key: start.loggers[name]} for name, (kind, key) in names.items() if name in start.loggers}


def lock_run_directory(run_dir: Path) -> AbstractContextManager[None]:
    """Refuse a second process in a run directory."""
    if rank_zero_only.rank != 0:
        return nullcontext()  # rank 0 holds it
    return lock_directory(
        run_dir,
        f"run_dir: another process is training in {run_dir}; wait for it, stop it, or choose another hydra.run.dir",
    )
