"""The names of what a run leaves in its directory, and which of its checkpoints stay."""

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moe_toy.files.atomic import replace

CONFIG, TOKENIZER, METRICS, CURVES = "config.yaml", "tokenizer.json", "metrics.csv", "curves.png"
STRONGEST_TOKENS, TEXT = "strongest_tokens.csv", "text.json"
CHECKPOINTS, LAST, BEST = "checkpoints", "last.ckpt", "best.ckpt"
STEP_FILE = re.compile(r"step-(\d+)\.ckpt")


@dataclass(frozen=True)
class RunDirectory:
    """The directory at `path`, which need not exist. `last.ckpt` and `best.ckpt` are second names of two of the last
    few checkpoints, which are named by their step."""

    path: Path

    @classmethod
    def of(cls, checkpoint: Path) -> "RunDirectory":
        """The directory in whose `checkpoints/` a checkpoint lies, also if that folder was moved and linked."""
        return cls(checkpoint.absolute().parent.parent)

    @property
    def config(self) -> Path:
        return self.path / CONFIG

    @property
    def tokenizer(self) -> Path:
        return self.path / TOKENIZER

    @property
    def text(self) -> Path:
        """Which text it was trained on: domains and fingerprint."""
        return self.path / TEXT

    @property
    def metrics(self) -> Path:
        return self.path / METRICS

    @property
    def curves(self) -> Path:
        return self.path / CURVES

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    @property
    def last(self) -> Path:
        return self.checkpoints / LAST

    def step(self, step: int) -> Path:
        """The checkpoint that is written after optimiser step `step`."""
        return self.checkpoints / f"step-{step:09d}.ckpt"

    def owns(self, checkpoint: Path) -> bool:
        """Whether a checkpoint lies in this directory, or where its checkpoints were moved to."""
        return not {self.path.resolve(), self.checkpoints.resolve()}.isdisjoint(checkpoint.resolve().parents)

    def candidates(self) -> Sequence[Path]:
        """All checkpoints, the newest first: by the step in their names, whatever the clock said."""
        named = [self.checkpoints / name for name in (LAST, BEST)]
        return [*self._by_step().values(), *(path for path in named if path.exists())]

    def keep_newest(self, number: int, up_to: int) -> None:
        """Remove all but the `number` newest checkpoints by step. Those after step `up_to` belong to a future that was
        given up, those that were not written to their end to a process that was killed. A folder of shards stays as
        long as `best.ckpt`, which can only point to it, does."""
        steps = self._by_step()
        kept = [step for step in steps if step <= up_to]
        best = self.checkpoints / BEST
        best_name = os.readlink(best) if best.is_symlink() else None
        kept = kept[:number] + [step for step in kept if steps[step].name == best_name]
        for step, path in steps.items():
            if step not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if best_name is not None and not best.exists():
            best.unlink()
        for part in self.checkpoints.glob("step-*.ckpt.part"):
            part.unlink()

    def _by_step(self) -> dict[int, Path]:
        """Newest first."""
        paths = self.checkpoints.glob("step-*")
        found = {int(match[1]): path for path in paths if (match := STEP_FILE.fullmatch(path.name))}
        return dict(sorted(found.items(), reverse=True))


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
