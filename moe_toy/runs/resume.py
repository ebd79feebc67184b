"""Where a run begins: anew, or from a checkpoint; and that it is alone in its directory."""

import logging
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from moe_toy.errors import UserError
from moe_toy.files.lock import lock_directory
from moe_toy.runs.checkpoint import load_checkpoint
from moe_toy.runs.checkpoint_file import DamagedError
from moe_toy.runs.checkpoint_folder import AUTO, belongs_to, candidates, last_good
from moe_toy.runs.sharded_checkpoint import check_sealed

log = logging.getLogger(__name__)


def starting_point(ckpt_path: str | None, run_dir: Path) -> Path | None:
    """The checkpoint to start from. `auto` is the newest undamaged one of `run_dir`, or none if it has none."""
    if ckpt_path == AUTO:
        found = last_good(run_dir)
        log.info("continuing from %s", found) if found else log.info("no checkpoint in %s: a new run", run_dir)
        return found
    is_its_own = ckpt_path is not None and belongs_to(run_dir, Path(ckpt_path))
    if not is_its_own and rank_zero_only.rank == 0 and candidates(run_dir):
        raise UserError(
            f"run_dir: {run_dir} holds a run already; continue it with ckpt_path=auto, or choose another hydra.run.dir"
        )
    if ckpt_path is None:
        return None
    path = Path(ckpt_path)
    if path.is_dir():  # a file is checked whenever it is loaded, shards are not until they are read
        try:
            check_sealed(path)
        except DamagedError as error:
            raise UserError(f"ckpt_path: {path} is damaged ({error}); pass another one") from error
    return path


def logger_options(start: Path | None, run_dir: Path) -> dict[str, dict[str, Any]]:
    """What makes loggers go on with the curves of the run that is continued, if it is continued in its directory."""
    if start is None or not belongs_to(run_dir, start):
        return {}
    state = load_checkpoint(start).get("loggers", {})
    names = {"csv_rows": ("csv", "keep_rows"), "wandb_id": ("wandb", "id")}
    return {group: {key: state[name]} for name, (group, key) in names.items() if name in state}


def lock_run_directory(run_dir: Path) -> AbstractContextManager[None]:
    """Refuse a second process in a run directory."""
    if rank_zero_only.rank != 0:
        return nullcontext()  # rank 0 holds it
    return lock_directory(
        run_dir,
        f"run_dir: another process is training in {run_dir}; wait for it, stop it, or choose another hydra.run.dir",
    )
