"""`python -m tests.reliability.fuzz --seconds 600`: damaged files for every reader; findings are kept in a folder
and make the exit code 1.

Each reader runs in a process of its own: what ends the process is a finding too.
"""

import argparse
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.reliability.fuzzing import finding, mutate
from tests.reliability.reading import READERS


def fuzz(name: str, seconds: float, seed: int, keep: Path) -> int:
    """How many files were neither read nor refused."""
    write, read = READERS[name]
    draw, found, number = random.Random(seed), Counter(), 0
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path)
        original = path.read_bytes()
        assert finding(read, path) is None, "the valid file is refused"
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            data = mutate(original, draw)
            path.write_bytes(data)
            keep.joinpath(f"{name}.running").write_bytes(data)
            number += 1
            if error := finding(read, path):
                kind = f"{type(error).__name__}: {str(error)[:100]!r}"
                found[kind] += 1
                if found[kind] == 1:
                    keep.joinpath(f"{len(found)}-{name}").write_bytes(data)
    keep.joinpath(f"{name}.running").unlink()
    print(f"{name}: {number} files, {found.total()} findings", flush=True)
    for kind, times in found.most_common():
        print(f"  {times:5d} {kind}", flush=True)
    return found.total()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="per reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("outputs/fuzz"))
    parser.add_argument("names", nargs="*", default=list(READERS))
    arguments = parser.parse_args()
    arguments.keep.mkdir(parents=True, exist_ok=True)
    failed = False
    for name in arguments.names:
        if (process := os.fork()) == 0:
            os._exit(fuzz(name, arguments.seconds, arguments.seed, arguments.keep) > 0)
        if status := os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]):
            failed = True
            if (running := arguments.keep / f"{name}.running").exists():
                print(f"{name}: the process ended with status {status}; see {running}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
