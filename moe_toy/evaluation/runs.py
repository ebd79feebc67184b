"""Finished evaluations, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from moe_toy.errors import UserError
from moe_toy.evaluation.output_folder import OutputFolder
from moe_toy.evaluation.settings import Options
from moe_toy.results import COMPARISON, Results
from moe_toy.runs.run_directory import RunDirectory


class FinishedRuns:
    """`paths` are folders that `evaluate.py` wrote."""

    def __init__(self, *, paths: Sequence[str | Path], options: Options) -> None:
        self.paths = list(dict.fromkeys(map(Path, paths)))
        self.options = options

    def check(self) -> None:
        if not self.paths:
            raise UserError("target.paths is empty; give the folders of finished evaluations, as target.paths=[a,b]")
        for path in self.paths:
            if path.suffix == ".ckpt" or RunDirectory(path).candidates():
                raise UserError(
                    f"target.paths: {path} is a run of train.py, not an evaluation of one; measure it first: "
                    f"evaluate.py target.path={path} out_dir=FOLDER, and give that folder"
                )
        summaries = {name: results.summary for name, results in self._models.items()}
        if not self.options.allow_different_text:
            check_same_text({name: summary.get("text") for name, summary in summaries.items()})
            read = {name: summary for name, summary in summaries.items() if summary.get("text")}
            check_same_length({name: summary["sequence_length"] for name, summary in read.items()})

    def prepare(self, out_dir: Path) -> None:
        OutputFolder(out_dir).check(self._identity())

    def run(self, out_dir: Path) -> Results:
        from moe_toy.report.compare import compare  # plotly takes a second

        OutputFolder(out_dir).write_identity(self._identity())
        return compare(self._models, self.paths)

    def write_report(self, results: Results, out_dir: Path) -> Path:
        from moe_toy.report.compare import write_comparison_page  # plotly takes a second

        return write_comparison_page(results, self._models, out_dir)

    @cached_property
    def _models(self) -> dict[str, Results]:
        from moe_toy.report.compare import load_models  # plotly takes a second

        return load_models(self.paths)

    def _identity(self) -> dict[str, Any]:
        return {"target": {"kind": COMPARISON, "paths": [str(path.resolve()) for path in self.paths]}, "data": None}


def check_same_text(texts: dict[str, dict[str, str] | None]) -> None:
    """Raise `UserError` naming two that were measured on different text; of older ones and of recorded routing it is
    not known."""
    known = {name: text for name, text in texts.items() if text}
    first = next(iter(known), "")
    for name, text in known.items():
        if text["fingerprint"] != known[first]["fingerprint"]:
            raise UserError(
                f"{first} was measured on {_words(known[first])}, {name} on {_words(text)}: their numbers do not "
                "compare; evaluate them on one text, or pass allow_different_text=true"
            )


def check_same_length(lengths: dict[str, int]) -> None:
    """Raise `UserError` naming two that read blocks of different lengths, each of which finds its caches empty."""
    first = next(iter(lengths), "")
    for name, length in lengths.items():
        if length != lengths[first]:
            raise UserError(
                f"{first} was measured on blocks of {lengths[first]} tokens, {name} on blocks of {length}: their hit "
                "rates do not compare; evaluate them with one data.validation_length, or pass "
                "allow_different_text=true"
            )


def _words(text: dict[str, str]) -> str:
    return f"{text['words']} ({text['fingerprint']})"
