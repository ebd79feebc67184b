"""Find and read the files of the pinned packages.

Nothing is imported from a package; the one program that runs is ruff, which prints its own rules.
"""

import hashlib
import re
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from moe_toy.corpus.pinned_packages import PACKAGES, Package, download_command
from moe_toy.errors import UserError


class Archives:
    """The files of located packages: an archive, or the installed copy of the same version."""

    def __init__(self, sources: Mapping[str, Path | Distribution]) -> None:
        self._sources = sources

    def files(self, package: str, pattern: str, exclude: str = r"(?!)") -> list[tuple[str, str]]:
        """(path, text) of the files whose path matches the one pattern and not the other, in order of path."""

        def wanted(path: str) -> bool:
            return bool(re.search(pattern, path)) and not re.search(exclude, path)

        files = sorted(_read(self._sources[package], wanted))
        return [(path, content.decode("utf-8", "replace")) for path, content in files]

    def run(self, package: str, *arguments: str) -> str:
        """What the package's program of the same name prints."""
        source, pattern = self._sources[package], rf"(^|/){package}(\.exe)?$"
        with tempfile.TemporaryDirectory() as folder:
            if isinstance(source, Distribution):
                [path] = [path for path in source.files or () if re.search(pattern, path.as_posix())]
                program = Path(str(source.locate_file(path)))
            else:
                [(path, content)] = _read(source, lambda path: bool(re.search(pattern, path)))
                program = Path(folder, Path(path).name)
                program.write_bytes(content)
                program.chmod(0o700)
            result = subprocess.run([program.resolve(), *arguments], cwd=folder, capture_output=True, check=True)
        return result.stdout.decode("utf-8")


def _read(source: Path | Distribution, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    if isinstance(source, Distribution):
        for path in source.files or ():
            if wanted(path.as_posix()):
                yield path.as_posix(), Path(str(source.locate_file(path))).read_bytes()
    elif source.suffix == ".whl":
        with zipfile.ZipFile(source) as wheel:
            for path in wheel.namelist():
                if wanted(path):
                    yield path, wheel.read(path)
    else:
        with tarfile.open(source) as sdist:
            for member in sdist:
                if member.isfile() and wanted(member.name):
                    yield member.name, sdist.extractfile(member).read()


def missing(packages: Iterable[str], folder: Path) -> list[Package]:
    """The packages that are neither installed in the pinned version nor in the folder."""
    pinned = [PACKAGES[name] for name in packages]
    return [package for package in pinned if not installed(package) and not package.find(folder)]


def locate(packages: Iterable[str], folder: Path) -> Archives:
    """Installed copies where they serve, else the archives in the folder, their hashes checked."""
    packages = list(packages)
    if absent := missing(packages, folder):
        names = ", ".join(package.filename for package in absent)
        raise UserError(f"{folder} lacks {names}; get them with `{download_command(absent, folder)}`")
    sources: dict[str, Path | Distribution] = {}
    for package in (PACKAGES[name] for name in packages):
        copy = installed(package)
        if copy is None:
            copy = package.find(folder)
            check_hash(copy, package)
        sources[package.name] = copy
    return Archives(sources)


def installed(package: Package) -> Distribution | None:
    """The installed copy if it can stand in for the archive: pinned version, its files listed and there."""
    if not package.use_installed:
        return None
    try:
        copy = distribution(package.name)
    except PackageNotFoundError:
        return None
    # Distributions repackaged by an operating system may list no files, or files moved elsewhere.
    files = [Path(str(copy.locate_file(path))) for path in copy.files or ()]
    complete = len(files) > 1 and all(path.exists() for path in files if path.suffix in {".py", "", ".exe"})
    return copy if copy.version == package.version and complete else None


def check_hash(archive: Path, package: Package) -> None:
    with archive.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found not in package.sha256:
        expected = " or ".join(package.sha256)
        raise UserError(f"{archive} has SHA-256 {found}, expected {expected}; delete it, it is not {package}")
