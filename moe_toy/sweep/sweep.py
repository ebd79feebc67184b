"""All arms of a sweep: refused if they changed, shown before and after, gathered in one table of results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from moe_toy.errors import UserError
from moe_toy.sweep.arm import Arm, identify
from moe_toy.sweep.record import State
from moe_toy.sweep.status_table import show

EXIT_INCOMPLETE = 1
"""Of a sweep with an arm that failed or is still running elsewhere."""


@dataclass(frozen=True)
class Sweep:
    name: str
    directory: Path
    arms: Sequence[Arm]
    parallel: int
    """How many arms run at a time."""

    def check(self) -> None:
        """Raise `UserError` before anything starts if arms are not what their directories say."""
        for arm in self.arms:
            if arm.config["ckpt_path"] is not None:
                raise UserError("ckpt_path is chosen by the sweep for each arm; leave it out, or train without sweep=")
            if changes := arm.changes():
                more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
                raise UserError(
                    f"{arm.directory} was started with another config: {'; '.join(changes[:3])}{more}; undo the change "
                    "or start another sweep with sweep_name=..."
                )

    @property
    def unfinished(self) -> list[Arm]:
        return [arm for arm in self.arms if arm.record.state is not State.DONE]

    def register(self) -> None:
        """Give every arm its directory, which says from now on what it is for."""
        for arm in self.arms:
            arm.directory.mkdir(parents=True, exist_ok=True)
            record = replace(arm.record, identity=identify(arm.config), choices=dict(arm.choices))
            if record != arm.record:
                record.write(arm.directory)

    def show(self) -> None:
        show(self.name, self.arms, self.parallel)

    def conclude(self) -> int:
        """Write what the finished arms found, show where all stand, and return the exit code."""
        done = [arm for arm in self.arms if arm.record.state is State.DONE]
        if done:
            from moe_toy.report.sweep import write_sweep_report
            from moe_toy.sweep.results import write_results

            write_results(done, self.directory)
            write_sweep_report(self.directory, out_dir=self.directory)
        self.show()
        return 0 if len(done) == len(self.arms) else EXIT_INCOMPLETE
