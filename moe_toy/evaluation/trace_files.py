"""Routing recorded elsewhere: our trace files, or routed experts as inference engines return them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import PositiveInt
from safetensors import SafetensorError, safe_open

from moe_toy.data.tokenizer import Tokenizer
from moe_toy.errors import UserError
from moe_toy.evaluation.evaluation import Evaluation, Subject, write_report
from moe_toy.evaluation.offloading import Offloading
from moe_toy.evaluation.settings import Options, check_segments_fit
from moe_toy.files.digest import file_digest
from moe_toy.files.reading import reading
from moe_toy.offload.replay import SCRATCH_BYTES
from moe_toy.results import Results
from moe_toy.routing import RoutingTrace
from moe_toy.traces.arrays import tokens_beside
from moe_toy.traces.contents import bare_name
from moe_toy.traces.foreign import ENDINGS, import_traces
from moe_toy.traces.one_model import OneModel
from moe_toy.traces.recording import Recording
from moe_toy.traces.trace_file import FORMAT, save_trace

log = logging.getLogger(__name__)
OURS = ".safetensors"
SHOWN = 8
"""Files that are passed over and named."""


class TraceTarget:
    """`path` is a file or a folder of files; a file that names no domains is a domain with the name of the file.

    `num_experts`, `sequence_length` and `keep_constant_layers` are for files of other programs: the experts of a layer,
    where the file does not say; the length of blocks into which requests are cut, None to leave them whole; and whether
    a layer in which all tokens have the same experts counts as an MoE layer. With `tokenizer`, a tokenizer.json, the
    report shows the text of tokens.
    """

    kind = "trace"

    def __init__(
        self,
        *,
        path: str | Path | None,
        num_experts: PositiveInt | None,
        sequence_length: PositiveInt | None,
        tokenizer: str | Path | None,
        options: Options,
        keep_constant_layers: bool = False,
    ) -> None:
        if not path:
            raise UserError("target.path is not set; give a trace file or a folder of them")
        self.source = str(path)
        self.path = Path(path)
        self.name = bare_name(Path(os.path.realpath(path)))
        self.num_experts = num_experts
        self.sequence_length = sequence_length
        self.keep_constant_layers = keep_constant_layers
        self.tokenizer = None if tokenizer is None else Path(tokenizer)
        self.evaluation = Evaluation(options)
        self._token_ids = True  # of files of other programs, unless one of them does not know its own
        self.offloading = Offloading(options.offload) if options.offload else None
        self.expert_bytes = options.device.get("expert_bytes")

    def check(self) -> None:
        """Reads the files as a whole."""
        files, together = self._files(), OneModel()
        for file in files:
            for trace in Recording([file]) if is_ours(file) else self._import(file):
                trace.check(str(file))
                together.add(file, trace)
        if together.with_ids and together.without_ids:
            if kept := next((file for file in files if is_ours(file)), None):
                raise UserError(
                    f"{together.without_ids} does not know the ids of its tokens, others beside it do, as {kept} may; "
                    "evaluate them apart"
                )
            log.info("%s does not know the ids of its tokens; those of others are left out", together.without_ids)
            self._token_ids = False
        options = self.evaluation.options
        if options.save_trace and len(together.lengths) > 1:
            raise UserError(
                f"{self.source}: sequences of {min(together.lengths)} to {max(together.lengths)} tokens do not fit "
                "into one trace; set save_trace=false, or give target.sequence_length"
            )
        check_segments_fit(options.metrics.segment_lengths, max(together.lengths), str(self.path))
        if self.tokenizer is not None and not self.tokenizer.is_file():
            raise UserError(f"target.tokenizer={self.tokenizer}: no such file; give a tokenizer.json")
        if self.path.is_dir() and (others := sorted(set(names_in(self.path)) - {file.name for file in files})):
            shown = ", ".join(others[:SHOWN]) + (" ..." if len(others) > SHOWN else "")
            log.info("%s: no recordings, and so passed over: %s", self.path, shown)
        if self.offloading is not None:
            self.offloading.check_traces(self._traces(), self.expert_bytes)

    def prepare(self, out_dir: Path) -> None:
        self.evaluation.prepare(self._subject(), out_dir)
        if self.offloading is not None:
            self.offloading.prepare(SCRATCH_BYTES, out_dir)

    def run(self, out_dir: Path) -> Results:
        results = self.evaluation.run(self._subject(), out_dir)
        if self.offloading is None:
            return results
        return self.offloading.replay(results, self._traces(), self.expert_bytes, out_dir)

    def write_report(self, results: Results, out_dir: Path) -> Path:
        report = write_report(results, out_dir)
        if self.offloading is not None:
            self.offloading.remove_parts(out_dir)
        return report

    def _traces(self) -> Iterator[RoutingTrace]:
        for file in self._files():
            if is_ours(file):
                yield from Recording([file])
            else:
                yield from (replace(trace, domains=trace.domains or (bare_name(file),)) for trace in self._import(file))

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
        options |= {"keep_constant_layers": True} if self.keep_constant_layers else {}
        options |= {} if self.tokenizer is None else {"tokenizer": file_digest(self.tokenizer)}
        if self.offloading is not None:
            options |= {"offload": self.offloading.settings.as_json(), "expert_bytes": self.expert_bytes}
        files = self._files()
        read = [*files, *(beside for file in files if (beside := tokens_beside(file)) is not None)]
        return {"files": {str(file.resolve()): file_digest(file) for file in read}, **options}

    def record(self, folder: Path) -> list[Path]:
        """Trace files of ours: the given ones, or in `folder` what was made of others."""
        parts = [
            [file] if is_ours(file) else self._imported(file, folder, number)
            for number, file in enumerate(self._files())
        ]
        return [part for of_file in parts for part in of_file]

    def _imported(self, file: Path, folder: Path, number: int) -> list[Path]:
        """A file for each length of sequence. What there is to say of `file` was said when it was checked."""
        folder.mkdir(parents=True, exist_ok=True)
        with in_silence("moe_toy.traces"):
            traces = self._import(file)
        made = [folder / f"{number}.{trace.sequence_length}{OURS}" for trace in traces]
        for trace, path in zip(traces, made, strict=True):
            save_trace(trace if self._token_ids else replace(trace, token_ids=None), path)
        return made

    def _import(self, file: Path) -> list[RoutingTrace]:
        return import_traces(
            file,
            num_experts=self.num_experts,
            sequence_length=self.sequence_length,
            keep_constant_layers=self.keep_constant_layers,
        )

    def _files(self) -> list[Path]:
        with reading(self.path):
            if self.path.is_file():
                return [self.path]
            if not self.path.is_dir():
                raise UserError(f"target.path={self.source} does not exist; give a trace file or a folder of them")
            files = [self.path / name for name in names_in(self.path) if is_trace(self.path / name)]
        if not files:
            raise UserError(
                f"target.path={self.source} holds no trace ({', '.join(ENDINGS)}, these with .gz); give another folder"
            )
        named: dict[str, Path] = {}
        for file in files:
            check_there(file)
            if (other := named.setdefault(bare_name(file), file)) != file:
                raise UserError(f"{other} and {file} would both be called {bare_name(file)}; rename one of them")
        return files


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def is_trace(file: Path) -> bool:
    """Whether its name is that of a recording; `.tokens.npy` lies beside one."""
    name = file.name.lower().removesuffix(".gz")
    return name.endswith(ENDINGS) and not name.endswith(".tokens.npy") and not file.is_dir()


def check_there(file: Path) -> None:
    """Raise `UserError` for a link to nothing, and for a name that no table can hold."""
    if not file.is_file():
        raise UserError(f"{file} is a link to nothing, or no file; mend or remove it")
    try:
        file.name.encode()
    except UnicodeEncodeError:
        raise UserError(f"the name of {str(file)!r} is not UTF-8; rename it") from None


@contextmanager
def in_silence(name: str) -> Iterator[None]:
    """The loggers below `name` say nothing."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


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
