"""Routing recorded elsewhere: our trace files, or routed experts as inference engines return them."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

from pydantic import PositiveInt
from safetensors import SafetensorError, safe_open

from moe_toy.data.tokenizer import Tokenizer
from moe_toy.errors import UserError
from moe_toy.evaluation.evaluation import Evaluation, Subject, write_report
from moe_toy.evaluation.routed_experts import IMPORTED, import_routed_experts
from moe_toy.evaluation.settings import Options
from moe_toy.evaluation.target import file_state
from moe_toy.results import Results
from moe_toy.routing import RoutingTrace
from moe_toy.traces.recording import Recording
from moe_toy.traces.trace_file import FORMAT, save_trace

OURS = ".safetensors"


class TraceTarget:
    """`path` is a file or a folder of files; a file that names no domains is a domain with the name of the file.

    `num_experts` and `sequence_length` are for arrays of routed experts only, which do not say. With `tokenizer`, a
    tokenizer.json, the report shows the text of tokens.
    """

    kind = "trace"

    def __init__(
        self,
        *,
        path: str | Path | None,
        num_experts: PositiveInt | None,
        sequence_length: PositiveInt,
        tokenizer: str | Path | None,
        options: Options,
    ) -> None:
        if path is None:
            raise UserError("target.path is not set; give a trace file or a folder of them")
        self.source = str(path)
        self.path = Path(path)
        self.name = self.path.resolve().stem
        self.num_experts = num_experts
        self.sequence_length = sequence_length
        self.tokenizer = None if tokenizer is None else Path(tokenizer)
        self.evaluation = Evaluation(options)

    def check(self) -> None:
        """Reads the files as a whole."""
        ours = {file: is_ours(file) for file in self._files()}
        for file in (file for file, is_it in ours.items() if not is_it):
            if self.num_experts is None:
                raise UserError(f"{file} holds routed experts, which do not say of how many; give target.num_experts")
            self._import(file)
        deque(Recording([file for file, is_it in ours.items() if is_it]), maxlen=0)
        if self.tokenizer is not None and not self.tokenizer.is_file():
            raise UserError(f"target.tokenizer={self.tokenizer}: no such file; give a tokenizer.json")

    def prepare(self, out_dir: Path) -> None:
        self.evaluation.prepare(self._subject(), out_dir)

    def run(self, out_dir: Path) -> Results:
        return self.evaluation.run(self._subject(), out_dir)

    def write_report(self, results: Results, out_dir: Path) -> Path:
        return write_report(results, out_dir)

    def _subject(self) -> Subject:
        return Subject(
            kind=self.kind,
            name=self.name,
            source=self.source,
            identity=self.identity(),
            record=self.record,
            tokenizer=None if self.tokenizer is None else Tokenizer.load(self.tokenizer),
        )

    def identity(self) -> dict[str, Any]:
        options = {"num_experts": self.num_experts, "sequence_length": self.sequence_length}
        return {"files": {str(file.resolve()): file_state(file) for file in self._files()}, **options}

    def record(self, folder: Path) -> list[Path]:
        """Trace files of ours: the given ones, or in `folder` what was made of others."""
        return [file if is_ours(file) else self._imported(file, folder) for file in self._files()]

    def _imported(self, file: Path, folder: Path) -> Path:
        made = folder / f"{file.stem}{OURS}"
        if not made.exists():
            folder.mkdir(parents=True, exist_ok=True)
            save_trace(self._import(file), made)
        return made

    def _import(self, file: Path) -> RoutingTrace:
        return import_routed_experts(file, num_experts=self.num_experts, sequence_length=self.sequence_length)

    def _files(self) -> list[Path]:
        if self.path.is_file():
            return [self.path]
        if not self.path.is_dir():
            raise UserError(f"target.path={self.source} does not exist; give a trace file or a folder of them")
        files = sorted(f for f in self.path.iterdir() if f.suffix in IMPORTED and not f.name.endswith(".tokens.npy"))
        if not files:
            raise UserError(f"target.path={self.source} holds no trace ({', '.join(IMPORTED)}); give another folder")
        named: dict[str, Path] = {}
        for file in files:
            if (other := named.setdefault(file.stem, file)) != file:
                raise UserError(f"{other} and {file} would both be called {file.stem}; rename one of them")
        return files


def is_ours(file: Path) -> bool:
    """Whether it is a trace of ours, of whichever version."""
    return metadata_of(file).get("format", "").startswith(FORMAT.split("/")[0])


def metadata_of(file: Path) -> dict[str, str]:
    if file.suffix != OURS:
        return {}
    try:
        with safe_open(file, framework="pt") as opened:
            return opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} is no readable safetensors file ({error}); write the trace again") from error
