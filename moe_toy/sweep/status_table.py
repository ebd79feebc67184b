"""Where every arm of a sweep stands, on the screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from statistics import mean

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from moe_toy.sweep.arm import Arm
from moe_toy.sweep.record import Record, State

STYLE = {
    State.DONE: "green",
    State.RUNNING: "cyan",
    State.INTERRUPTED: "yellow",
    State.FAILED: "red",
    State.TO_DO: "default",
}
COMPUTE_TOLERANCE = 0.05
"""Arms further from the first one in FLOPs are marked as not matched."""


def show(name: str, arms: Sequence[Arm], parallel: int, console: Console | None = None) -> None:
    """A row per arm; below it how many are in which state, and the time left if others take as long as the finished."""
    records = [arm.record for arm in arms]
    table = Table(title=f"sweep {escape(name)}: {len(arms)} arms", title_justify="left")
    for column in ("arm", "seed", "state", "time"):
        table.add_column(column, overflow="fold")
    for column in ("active parameters", "FLOPs per token"):
        table.add_column(column, justify="right")
    for arm, record in zip(arms, records, strict=True):
        apart = arm.flops_per_token / arms[0].flops_per_token - 1
        mark = f" ({apart:+.0%})" if abs(apart) > COMPUTE_TOLERANCE else ""
        table.add_row(
            escape(arm.name),
            str(arm.seed),
            f"[{STYLE[record.state]}]{record.state}[/] {escape((record.error or '')[:80])}".strip(),
            _clock(record.seconds) if record.seconds else "",
            f"{arm.model.active_parameters / 1e6:.2f} M",
            f"{arm.flops_per_token / 1e6:.1f} M{mark}",
        )
    console = console or Console()
    console.print(table)
    counts = Counter(record.state for record in records)
    console.print(", ".join(f"{counts[state]} {state}" for state in STYLE if counts[state]) + _left(records, parallel))


def _left(records: Sequence[Record], parallel: int) -> str:
    """ "; about 1:20:00 left", or nothing where it is not known."""
    finished = [record.seconds for record in records if record.state is State.DONE]
    remaining = len(records) - len(finished)
    if not finished or not remaining:
        return ""
    return f"; about {_clock(mean(finished) * remaining / min(parallel, remaining))} left"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
