"""One evaluation in one folder: record, measure, keep."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moe_toy.data.tokenizer import Tokenizer
from moe_toy.evaluation.measure import VERSION, measure
from moe_toy.evaluation.output_folder import OutputFolder
from moe_toy.evaluation.settings import Options
from moe_toy.findings.recommend import recommend
from moe_toy.results import SUMMARY, Results
from moe_toy.routing import RoutingTrace, joined
from moe_toy.traces.losses import Losses
from moe_toy.traces.recording import Recording
from moe_toy.traces.trace_file import save_trace

log = logging.getLogger(__name__)
TRACE = "trace.safetensors"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Whose routing is measured."""

    kind: str
    name: str
    source: str
    """Path or hub name, as given."""
    identity: dict[str, Any]
    """What decides the routing of a token: JSON that is equal for equal targets."""
    record: Callable[[Path], list[Path]]
    """The trace files of the target, of which it may write some to the folder; those that are there are kept."""
    tokenizer: Tokenizer | None
    """None where the text of tokens is unknown."""
    domains: Sequence[str] = ()
    """Those of all trace files, where they are known before the files are there."""
    data: dict[str, Any] | None = None
    """Identity of the text that was read; None where routing was recorded elsewhere."""
    text: dict[str, str] | None = None
    """The same for people: `words`, and its `fingerprint`."""


class Evaluation:
    """From a subject to its results. Targets whose routing is measured hold one."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def prepare(self, subject: Subject, out_dir: Path) -> None:
        """Raise `UserError` unless the folder is free for these results."""
        OutputFolder(out_dir).check(_identity(subject))

    def run(self, subject: Subject, out_dir: Path) -> Results:
        """Measure, unless the folder holds the same results already, and recommend a cache."""
        folder, options = OutputFolder(out_dir), self.options
        folder.write_identity(_identity(subject))
        name = options.name or subject.name
        if finished := self._finished(out_dir):
            log.info("%s is measured already", out_dir)
            return recommend(replace(finished, summary=finished.summary | {"name": name}), **options.device)
        recording = Recording(subject.record(folder.traces), subject.domains)
        about = {"name": name, "target": subject.kind, "source": subject.source, "text": subject.text}
        kept: list[RoutingTrace] = []
        keep = {"keep": kept.append} if options.save_trace else {}
        results = measure(recording, options.metrics, subject.tokenizer, about, **keep)
        if kept:
            _save_together(kept, out_dir / TRACE)
        return recommend(results, **options.device)

    def _finished(self, out_dir: Path) -> Results | None:
        wanted = [SUMMARY, TRACE] if self.options.save_trace else [SUMMARY]
        if not all((out_dir / name).exists() for name in wanted):
            return None
        results = Results.load_model(out_dir)
        counted = results.summary["settings"], results.summary.get("version")
        return results if counted == (self.options.metrics.as_json(), VERSION) else None


def _save_together(traces: list[RoutingTrace], path: Path) -> None:
    trace, losses = joined(traces), Losses()
    for part in traces:
        losses.add(part)
    known = {name: values for name, values in losses.by_domain().items() if values}
    save_trace(replace(trace, source=trace.source | known), path)


def write_report(results: Results, out_dir: Path) -> Path:
    """The report of one model, whose results are kept: the traces of single domains are no longer needed."""
    from moe_toy.report import html  # plotly takes a second

    report = html.write_report(results, out_dir)
    OutputFolder(out_dir).remove_traces()
    return report


def _identity(subject: Subject) -> dict[str, Any]:
    target = {"kind": subject.kind, "source": subject.source, **subject.identity}
    return {"target": target, "data": subject.data}
