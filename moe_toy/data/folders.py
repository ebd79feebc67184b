"""Which files of a folder are text, and of which domain and split."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from unicodedata import category

from moe_toy.data.readers import FILE_TYPES, file_type
from moe_toy.errors import UserError
from moe_toy.files.reading import reading

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")
NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
}
"""What folders of a split are called."""
HELD_OUT = ("test", "eval", "heldout")
"""What is not to be trained on either."""
UNFIT = {"Cc", "Cs", "Zl", "Zp"}  # control characters, bytes that are not UTF-8, ends of lines
LONGEST_NAME = 200  # bytes of a domain, which becomes part of the names of files


def split_folders(path: Path) -> dict[Split, Path] | None:
    """Where each split lies; None where `path` is not divided by splits."""
    found = {split: [path / name for name in NAMES[split] if (path / name).is_dir()] for split in SPLITS}
    if not any(found.values()):
        return None
    if any(len(folders) > 1 for folders in found.values()):
        both = ", ".join(str(folder) for folders in found.values() for folder in folders)
        raise UserError(f"{path} has more than one folder of a split: {both}; join or rename them")
    for split, other in (SPLITS, SPLITS[::-1]):
        if not found[split]:
            raise UserError(
                f"{path} has {found[other][0].name}/ but no {split}/; add it, or rename it if that is a domain"
            )
    folders = {split: folder for split, (folder,) in found.items()}
    for beside in sorted(set(path.iterdir()) - set(folders.values())):
        is_text = beside.is_dir() or file_type(beside) in FILE_TYPES
        if is_text and not beside.name.startswith(".") and beside.stem.lower() not in HELD_OUT:
            inside = " and ".join(f"{folder.name}/" for folder in folders.values())
            raise UserError(f"{beside} lies beside {inside}, where it is not read; move it into them, or away")
    return folders


@dataclass
class Seen:
    """What was found so far, so that no text is read twice."""

    folders: set[Path] = field(default_factory=set)
    """Outside of the folder of text, to which links lead."""
    files: dict[tuple[int, int], Path] = field(default_factory=dict)
    """By device and inode, which links share."""


def files_by_split(path: Path) -> dict[Split, dict[str, list[Path]]]:
    """The files of each domain, in order; of both splits together where `path` is not divided by splits."""
    seen = Seen()
    folders = split_folders(path)
    if folders is None:
        return dict.fromkeys(SPLITS, _files_by_domain(path, path, seen))
    files = {split: _files_by_domain(folder, path, seen) for split, folder in folders.items()}
    for split, other in (SPLITS, SPLITS[::-1]):
        if missing := sorted(set(files[other]) - set(files[split])):
            raise UserError(
                f"{folders[split]} has no text for {', '.join(missing)}, which {folders[other]} has; add it there, or "
                "take it away here"
            )
    return files


def _files_by_domain(folder: Path, root: Path, seen: Seen) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    with reading(folder):
        found = sorted(_walk(folder, root, seen))
    for path in found:
        relative = path.relative_to(folder)
        if file_type(path) not in FILE_TYPES:
            raise UserError(f"{path}: unknown file type {path.suffix!r}; use {', '.join(FILE_TYPES)} or move it away")
        stat = path.stat()
        if stat.st_size == 0:
            raise UserError(f"{path} is empty; fill or remove it")
        if stat.st_ino and (other := seen.files.setdefault((stat.st_dev, stat.st_ino), path)) != path:
            raise UserError(f"{other} and {path} are links to one file, whose text would be read twice; remove one")
        domain = relative.parts[0] if len(relative.parts) > 1 else path.stem
        if len(domain.encode()) > LONGEST_NAME:
            raise UserError(f"the domain {domain[:20]}... in {folder} has more than {LONGEST_NAME} bytes; rename it")
        files.setdefault(domain, []).append(path)
    if not files:
        raise UserError(f"{folder} holds no text; put one sub-folder or {'/'.join(FILE_TYPES)} file per domain there")
    _refuse_splits_as_domains(folder, files)
    return files


def _walk(folder: Path, root: Path, seen: Seen) -> Iterator[Path]:
    """Every file below a folder that is not hidden, through links as well, each once."""
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names = [name for name in files if not name.startswith(".")]
        for name in [*folders, *names]:
            path = Path(place) / name
            if any(category(letter) in UNFIT for letter in name):
                raise UserError(f"{str(path)!r}: its name is not UTF-8, or holds control characters; rename it")
            if not path.exists():
                raise UserError(f"{path} is a link to {os.readlink(path)}, which is not there; mend or remove it")
            if path.is_symlink():
                _check_link(path, root.resolve(), seen)
        yield from (Path(place) / name for name in names)


def _check_link(path: Path, root: Path, seen: Seen) -> None:
    """Refuse a link that leads in a circle, or to a folder or file within `root`, or to a folder seen already."""
    real = path.resolve()
    place = path.parent.resolve()
    if real in {place, *place.parents}:
        raise UserError(f"{path} is a link to a folder that holds it; remove it")
    inside = real.relative_to(root).parts if real.is_relative_to(root) else (".",)
    if not any(part.startswith(".") for part in inside):
        raise UserError(f"{path} is a link to {real}, whose text is read already; remove it")
    if not real.is_dir():
        return
    if any(real.is_relative_to(other) or other.is_relative_to(real) for other in seen.folders):
        raise UserError(f"{path} is a link to {real}, whose text another link gives already; remove one of them")
    seen.folders.add(real)


def _refuse(error: OSError) -> None:
    """A folder that cannot be listed would be left out in silence."""
    raise error


def _refuse_splits_as_domains(folder: Path, files: dict[str, list[Path]]) -> None:
    """Files named `train` and `test` are parts of one domain, whose documents would be mixed or trained on."""
    training, held_out = NAMES["train"], (*NAMES["validation"], *HELD_OUT)
    for place, names in [(folder, set(files)), *((folder / d, {path.stem for path in files[d]}) for d in files)]:
        stems = {name.lower() for name in names}
        if (a := stems & set(training)) and (b := stems & set(held_out)):
            raise UserError(
                f"{place} holds {min(a)} and {min(b)}, which are splits and no domains; let them be "
                f"{folder}/train/NAME and {folder}/validation/NAME with the name of the domain, or rename them"
            )
    if alone := sorted(domain for domain in files if domain.lower() in HELD_OUT):
        raise UserError(
            f"{folder} holds {alone[0]}, which would be trained on; move it away, or rename it if it is a domain"
        )
