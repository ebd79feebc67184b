"""A progress bar for the steps of long work."""

import logging
from collections.abc import Iterator, Sequence
from typing import TypeVar

log = logging.getLogger(__name__)
Step = TypeVar("Step")


def with_progress(steps: Sequence[Step], activity: str) -> Iterator[Step]:
    """The steps, with a bar on stderr while someone watches a terminal; one log line a step otherwise."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(activity, total=len(steps))
        for step in steps:
            bar.update(task, description=f"{activity} {step}")
            if not console.is_terminal:
                log.info("%s %s", activity, step)
            yield step
            bar.advance(task)
