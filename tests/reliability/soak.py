"""`python -m tests.reliability.soak --minutes 120`: hours of training with a validation every minute, watched.

Prints how memory and open files grow and how throughput holds up against the first tenth of the run; ends with exit
code 1 if files grow, throughput falls by more than 5 % or memory grows by more than 1 MB a minute.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tests.paths import ROOT

LOOKS = 500
SHORTEST = 10  # minutes that are judged


@dataclass(frozen=True)
class Soak:
    looks: pd.DataFrame
    """Seconds, memory in MB and open files, at most 500 times."""
    tokens_per_s: pd.Series

    def memory_growth(self) -> float:
        """MB a minute, once the first tenth is over."""
        warm = self._warm()
        return 60 * np.polyfit(warm.seconds, warm.memory, 1)[0]

    def more_files(self) -> int:
        warm = self._warm()
        return int(warm.files.iloc[-3:].min() - warm.files.iloc[:3].max())  # a checkpoint may be open

    def throughput_kept(self) -> float:
        """Of the last tenth, relative to the first."""
        tenth = max(1, len(self.tokens_per_s) // 10)
        return self.tokens_per_s.iloc[-tenth:].median() / self.tokens_per_s.iloc[:tenth].median()

    def _warm(self) -> pd.DataFrame:
        return self.looks[self.looks.seconds > self.looks.seconds.max() / 10]


def soak(run_dir: Path, minutes: float, overrides: Sequence[str]) -> Soak:
    """Train for so long; raises if the run fails."""
    command = [sys.executable, ROOT / "train.py", f"hydra.run.dir={run_dir}", "trainer.max_steps=1000000"]
    command += [f"trainer.max_time={{seconds: {60 * minutes:.0f}}}", "trainer.enable_progress_bar=false", *overrides]
    with subprocess.Popen(command) as process:
        looks = watch(process, every=60 * minutes / LOOKS)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Soak(looks, pd.read_csv(run_dir / "metrics.csv")["train/tokens_per_s"].dropna())


def watch(process: subprocess.Popen, every: float) -> pd.DataFrame:
    """A row each `every` seconds while the process lives."""
    rows = []
    folder, started = Path(f"/proc/{process.pid}"), time.monotonic()
    while process.poll() is None:
        try:
            status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
            files = len(list((folder / "fd").iterdir()))
            rows.append((time.monotonic() - started, int(status["VmRSS"].split()[0]) / 1024, files))
        except (FileNotFoundError, KeyError):  # it has just ended
            break
        time.sleep(every)
    return pd.DataFrame(rows, columns=["seconds", "memory", "files"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--steps-per-minute", type=int, default=150, help="how many the machine does")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    run_dir = Path(tempfile.mkdtemp(prefix="soak-"))
    each_minute = f"trainer.val_check_interval={arguments.steps_per_minute}"
    found = soak(run_dir, arguments.minutes, [each_minute, *arguments.overrides])
    found.looks.round(2).to_csv(run_dir / "soak.csv", index=False)
    growth, files, kept = found.memory_growth(), found.more_files(), found.throughput_kept()
    print(f"{run_dir}: memory {growth:+.2f} MB a minute, files {files:+d}, throughput {kept:.1%} of the first tenth")
    if arguments.minutes < SHORTEST:
        print(f"less than {SHORTEST} minutes cannot tell growth from warming up: measured, not judged")
    sys.exit(exit_code(found, arguments.minutes))


def exit_code(found: Soak, minutes: float) -> int:
    """1 for a run that was long enough to be judged and grew, leaked files or became slower."""
    judged = minutes >= SHORTEST
    return int(judged and (found.memory_growth() > 1 or found.more_files() > 0 or found.throughput_kept() < 0.95))


if __name__ == "__main__":
    main()
