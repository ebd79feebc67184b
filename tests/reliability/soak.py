"""`python -m tests.reliability.soak --minutes 120`: hours of training with a validation every minute, watched.

Prints how memory and open files grow and how throughput holds up against the first tenth of the run; ends with exit
code 1 if files grow, throughput falls by more than 5 % or memory grows by more than 1 MB a minute.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from tests.paths import ROOT


def watch(process: subprocess.Popen) -> pd.DataFrame:
    """A row every ten seconds while the process lives."""
    rows = []
    folder, started = Path(f"/proc/{process.pid}"), time.monotonic()
    while process.poll() is None:
        try:
            status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
            files = len(list((folder / "fd").iterdir()))
            rows.append((time.monotonic() - started, int(status["VmRSS"].split()[0]) / 1024, files))
        except (FileNotFoundError, KeyError):  # it has just ended
            break
        time.sleep(10)
    return pd.DataFrame(rows, columns=["seconds", "memory", "files"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--steps-per-minute", type=int, default=80, help="how many the machine does")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    run_dir = tempfile.mkdtemp(prefix="soak-")
    command = [sys.executable, ROOT / "train.py", f"hydra.run.dir={run_dir}", "trainer.max_steps=1000000"]
    command += [f"trainer.max_time={{minutes:{int(arguments.minutes)}}}", "trainer.enable_progress_bar=false"]
    command += [f"trainer.val_check_interval={arguments.steps_per_minute}", *arguments.overrides]
    with subprocess.Popen(command) as process:
        seen = watch(process)
    warm = seen[seen.seconds > seen.seconds.max() / 10]
    growth = 60 * np.polyfit(warm.seconds, warm.memory, 1)[0]
    files = int(warm.files.iloc[-1] - warm.files.iloc[0])
    speed = pd.read_csv(f"{run_dir}/metrics.csv")["train/tokens_per_s"].dropna()
    tenth = max(1, len(speed) // 10)
    ratio = speed.iloc[-tenth:].median() / speed.iloc[:tenth].median()
    print(f"{run_dir}: memory {growth:+.2f} MB a minute, files {files:+d}, throughput {ratio:.1%} of the first tenth")
    sys.exit(process.returncode or int(growth > 1 or files > 0 or ratio < 0.95))


if __name__ == "__main__":
    main()
