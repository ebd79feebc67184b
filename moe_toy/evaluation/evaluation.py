"""One evaluation in one folder: record, measure, keep."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from moe_toy.data.tokenizer import Tokenizer
from moe_toy.evaluation.capture import capture, check_fits, joined
from moe_toy.evaluation.measure import measure
from moe_toy.evaluation.output_folder import OutputFolder
from moe_toy.evaluation.samples import Samples
from moe_toy.evaluation.settings import MetricSettings
from moe_toy.evaluation.target import ModelTarget
from moe_toy.evaluation.trace_files import TraceTarget
from moe_toy.results import SUMMARY, Results
from moe_toy.traces.recording import Recording
from moe_toy.traces.trace_file import save_trace

log = logging.getLogger(__name__)
TRACE = "trace.safetensors"


class Evaluation:
    """`samples` are the text for a model; recorded traces need none."""

    def __init__(
        self,
        target: ModelTarget | TraceTarget,
        samples: Samples | None,
        settings: MetricSettings,
        out_dir: Path,
        *,
        name: str | None,
        save_trace: bool,
    ) -> None:
        self.target = target
        self.samples = samples
        self.settings = settings
        self.folder = OutputFolder(out_dir)
        self.name = name or target.name
        self.save_trace = save_trace

    def check(self) -> None:
        """Of the text, before anything is fetched; the target checks itself."""
        if self.samples is not None:
            self.samples.source.check()

    def prepare(self) -> None:
        """Get the text ready, and see that it fits the model and that the folder is free."""
        if self.samples is not None:
            self.samples.prepare()
            check_fits(self.target.limits(), self.samples)
        self.folder.check(self._identity())

    def run(self) -> Results:
        """Measure, unless the folder holds the same results already."""
        self.folder.claim(self._identity())
        if finished := self._finished():
            log.info("%s is measured already", self.folder.path)
            return replace(finished, summary=finished.summary | {"name": self.name})
        if isinstance(self.target, TraceTarget):
            files = self.target.record(self.folder.traces)
        else:
            files = capture(self.target, self.samples, self.folder.traces)
        recording = Recording(files)
        about = {"name": self.name, "target": self.target.kind, "source": self.target.source}
        results = measure(recording, self.settings, self._tokenizer(), about)
        if self.save_trace:
            save_trace(joined(list(recording)), self.folder.path / TRACE)
        return results

    def tidy(self) -> None:
        """Forget the traces of single domains, once the results are kept."""
        self.folder.remove_traces()

    def _finished(self) -> Results | None:
        if not (self.folder.path / SUMMARY).exists() or (self.save_trace and not (self.folder.path / TRACE).exists()):
            return None
        results = Results.load_model(self.folder.path)
        return results if results.summary["settings"] == self.settings.as_json() else None

    def _identity(self) -> dict[str, Any]:
        """What decides the routing."""
        target = {"kind": self.target.kind, "source": self.target.source, **self.target.identity()}
        return {"target": target, "data": None if self.samples is None else self.samples.identity()}

    def _tokenizer(self) -> Tokenizer | None:
        if self.samples is not None:
            return self.samples.tokenizer
        return None if self.target.tokenizer is None else Tokenizer.load(self.target.tokenizer)
