"""The checkpoints of a run: the last few by step, with the names `last.ckpt` and `best.ckpt` for two of them."""

import logging
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from moe_toy.errors import UserError
from moe_toy.runs.checkpoint_file import DamagedError, load_intact, replace
from moe_toy.runs.sharded_checkpoint import check_sealed

log = logging.getLogger(__name__)
FOLDER = "checkpoints"
AUTO = "auto"
"""What `ckpt_path` says for the newest undamaged one."""
LAST, BEST = "last.ckpt", "best.ckpt"
STEP_FILE = re.compile(r"step-(\d+)\.ckpt")


def step_file(folder: Path, step: int) -> Path:
    return folder / f"step-{step:09d}.ckpt"


def add_alias(path: Path, name: str) -> None:
    """Give a checkpoint a second name, at once and without a second copy where the file system can."""
    part, target = path.with_name(f"{name}.part"), path.with_name(name)
    part.unlink(missing_ok=True)
    try:
        os.symlink(path.name, part) if path.is_dir() else os.link(path, part)  # a folder of shards
    except OSError:
        shutil.copyfile(path, part)
    replace(part, target)
    part.unlink(missing_ok=True)  # still there if both names were of one file already


def keep_newest(folder: Path, last: int, up_to: int) -> None:
    """Keep the `last` newest files by step. Those after `up_to` belong to a future that was given up, those that were
    not written to their end to a process that was killed."""
    steps = _by_step(folder)
    kept = [step for step in steps if step <= up_to][:last]
    for step, path in steps.items():
        if step not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for part in folder.glob("step-*.ckpt.part"):
        part.unlink()


def run_dir_of(checkpoint: Path) -> Path:
    """Where the config and the tokenizer of a checkpoint are, also if `checkpoints/` was moved and linked."""
    return checkpoint.absolute().parent.parent


def belongs_to(run_dir: Path, checkpoint: Path) -> bool:
    """Whether it lies in the directory of the run, or where its checkpoints were moved to."""
    return not {run_dir.resolve(), (run_dir / FOLDER).resolve()}.isdisjoint(checkpoint.resolve().parents)


def candidates(run_dir: Path) -> Sequence[Path]:
    """All checkpoints of a run, the newest first: by the step in their names, whatever the clock said."""
    folder = run_dir / FOLDER
    named = [folder / name for name in (LAST, BEST)]
    return [*_by_step(folder).values(), *(path for path in named if path.exists())]


def last_good(run_dir: Path) -> Path | None:
    """The newest undamaged checkpoint of a run, or None if it has none at all. Each damaged one is told of."""
    paths = candidates(run_dir)
    for path in paths:
        try:
            check_whole(path)
        except (DamagedError, OSError) as error:
            log.warning("%s is damaged (%s); going back to the one before", path, error)
        else:
            return path
    if paths:
        raise UserError(
            f"ckpt_path=auto: every checkpoint in {run_dir / FOLDER} is damaged; restore one of them, or start a new "
            "run elsewhere"
        )
    return None


def check_whole(path: Path) -> None:
    """Raise `DamagedError` unless it is what was once written."""
    check_sealed(path) if path.is_dir() else load_intact(path)


def _by_step(folder: Path) -> dict[int, Path]:
    """Newest first."""
    found = {int(match[1]): path for path in folder.glob("step-*") if (match := STEP_FILE.fullmatch(path.name))}
    return dict(sorted(found.items(), reverse=True))
