"""The text of a run of `train.py`, from what its directory says of it."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import PositiveInt

from moe_toy.checks.constructors import check_constructors
from moe_toy.corpus.domains import CorpusDomains
from moe_toy.data.domains import FileDomains, TextSource, data_root
from moe_toy.data.hub import HubDomains
from moe_toy.errors import UserError
from moe_toy.evaluation.samples import Text, words_of
from moe_toy.evaluation.target import RunDescription
from moe_toy.files.reading import reading
from moe_toy.runs.run_directory import RunDirectory

SOURCES: dict[str, type[TextSource]] = {cls.__name__: cls for cls in (CorpusDomains, FileDomains, HubDomains)}
"""What the config of a run may name; it may come from somebody else."""
LENGTH = 512
OTHER_TEXT = "or measure on other text: data=corpus, or data=files data.source.path=FOLDER"


class RunText:
    """Which text a checkpoint is measured on where none is named: that of its run."""

    source = None
    """Known only with the run."""

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        domains: Sequence[str] | None = None,
        tokenizer: str | None = None,
        validation_length: PositiveInt | None = None,
        validation_samples: PositiveInt = 64,
    ) -> None:
        self.root = root
        self.domains = domains
        self.validation_length = validation_length
        self.validation_samples = validation_samples

    def of(self, run: RunDescription | None) -> Text:
        """The text of a run: source, domains, split and length. The corpus where there is no run."""
        if run is None or "data" not in run.config:
            source: TextSource = CorpusDomains(root=self.root, archives=None)
            source = source if self.domains is None else source.select(self.domains)
            return Text(source, data_root(self.root), self.validation_samples, self.validation_length or LENGTH)
        place = RunDirectory(run.path).config
        data = run.config["data"]
        if not isinstance(data, dict):
            raise UserError(f"{place}: data holds no keys with values; mend it, {OTHER_TEXT}")
        length = self.validation_length or data.get("validation_length", LENGTH)
        if not isinstance(length, int) or length < 2:
            raise UserError(f"{place}: data.validation_length is no number of tokens, given {length!r}; mend it")
        root = self.root or data.get("root")
        source = source_of(data.get("source"), place, root)
        try:
            source.check()
            whole = source if data.get("domains") is None else source.select(data["domains"])
            source = whole if self.domains is None else whole.select(self.domains)
        except UserError as error:
            raise UserError(
                f"{run.path} was trained on {words_of(source)}, which cannot be read any more ({error}); put it back, "
                f"{other_place(source)}"
            ) from error
        text = Text(source, data_root(root), self.validation_samples, length)
        return RecordedText(**vars(text), whole=whole, run_dir=run.path, fingerprint=recorded_fingerprint(run.path))


@dataclass(frozen=True)
class RecordedText(Text):
    """The text of the run in `run_dir`, which has the `fingerprint` that was recorded there; None: an older run."""

    whole: TextSource
    """With all domains of the run."""
    run_dir: Path
    fingerprint: str | None

    def check_unchanged(self) -> None:
        now = self.whole.fingerprint()
        if self.fingerprint is not None and now != self.fingerprint:
            raise UserError(
                f"{words_of(self.source)} is not the text any more that {self.run_dir} was trained on (fingerprint "
                f"{self.fingerprint} then, {now} now); put it back, {other_place(self.source)}"
            )

    @property
    def words(self) -> str:
        checked = "" if self.fingerprint is not None else "; the run recorded no fingerprint of it"
        return f"{words_of(self.source)}, the run's own text{checked}"


def source_of(settings: Any, place: Path, root: str | Path | None) -> TextSource:
    """The source that `data.source` in the config of a run names, if it is one of ours; nothing else is called."""
    target = settings.get("_target_") if isinstance(settings, dict) else None
    named = re.fullmatch(r"moe_toy\.(?:data|corpus)\.\w+\.(\w+)", target) if isinstance(target, str) else None
    made = SOURCES.get(named[1]) if named else None
    if made is None:
        raise UserError(f"{place}: data.source._target_ is no source of text of ours, given {target!r}; {OTHER_TEXT}")
    values = {key: value for key, value in settings.items() if not key.startswith("_")}
    if "trust_remote_code" in repr(values):
        raise UserError(f"{place}: data.source asks to run code of others; {OTHER_TEXT}")
    if "root" in inspect.signature(made).parameters:
        values["root"] = root
    try:
        check_constructors({"data": {"source": {**values, "_target_": target}}})
        return made(**values)
    except UserError as error:
        raise UserError(f"{place}: {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{place}: data.source does not fit {named[1]} ({' '.join(str(error).split())})") from error


def recorded_fingerprint(run_dir: Path) -> str | None:
    """Of the text that a run was trained on; None where it recorded none."""
    path = RunDirectory(run_dir).text
    with reading(path):
        try:
            return str(json.loads(path.read_text())["fingerprint"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({' '.join(str(error).split())}); remove it") from error


def other_place(source: TextSource) -> str:
    """How to say where the text is now."""
    if not isinstance(source, FileDomains):
        return OTHER_TEXT
    return (
        "or say where it is: data=files data.source.path=FOLDER "
        f"data.source.validation_fraction={source.validation_fraction}"
    )
