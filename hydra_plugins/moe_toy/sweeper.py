"""A sweeper that checks every job before the first one starts, and that goes on with a sweep where it stopped."""

import itertools
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

import moe_toy.runs.run_name  # noqa: F401  gives configs the resolver `name_of`, in every process of a launcher too
from moe_toy.command_line.job import Job, set_value
from moe_toy.command_line.preflight import resolve_key, run_stages

# Hydra imports every plugin at the start of every command: what is heavy is imported where it is used.


@dataclass
class CheckedSweeperConf(BasicSweeperConf):
    _target_: str = "hydra_plugins.moe_toy.sweeper.CheckedSweeper"
    stages: list[str] = field(default_factory=list)
    directory_key: str | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="moe_toy", node=CheckedSweeperConf, provider="moe_toy")


class CheckedSweeper(BasicSweeper):
    """Hydra's grid of jobs, each with a directory of its own and past all of `stages` before the first one starts.

    Where the config has a `sweep_name`, the jobs are arms of a sweep: those that are finished are left out, the results
    of all are gathered at the end, and the exit code tells whether all are finished. `directory_key` names the key of
    the config that says where a job writes to, where that is not its `hydra.sweep.subdir`.
    """

    def __init__(self, stages: list[str], directory_key: str | None, **basic: Any) -> None:
        super().__init__(**basic)
        self.stages, self.directory_key = stages, directory_key

    def sweep(self, arguments: list[str]) -> Any:
        jobs = self._compose_jobs(arguments)
        if self.config.get("sweep_name"):
            self._run_arms(jobs)
        self._place(jobs)
        run_stages(self.stages, [job.resolved(self._directory(job)) for job in jobs])
        return self._launch(jobs)

    def _compose_jobs(self, arguments: list[str]) -> list[Job]:
        """A job for each point of the grid; arguments replace the keys of the config's own grid."""
        loader = self.hydra_context.config_loader
        parser = OverridesParser.create(config_loader=loader)
        choices: dict[str, list[tuple[str, str]]] = {}
        varied = set(self.params)
        for override in parser.parse_overrides([*self._parse_config(), *arguments]):
            key = override.get_key_element()
            if override.is_sweep_override():
                choices[key] = [(f"{key}={value}", value) for value in override.sweep_string_iterator()]
                varied.add(key)
            else:
                choices[key] = [(override.input_line, override.input_line.partition("=")[2])]
        jobs = []
        for number, point in enumerate(itertools.product(*choices.values())):
            overrides = [override for override, _ in point]
            config = loader.load_sweep_config(self.config, list(overrides))
            set_value(config, "hydra.job.num", number)
            values = dict(zip(choices, (value for _, value in point), strict=True))
            jobs.append(Job(overrides, values, {key: value for key, value in values.items() if key in varied}, config))
        return jobs

    def _place(self, jobs: list[Job]) -> None:
        """Decide every job's directory; those that would share one are told apart by what they vary."""
        names = [resolve_key(job.config, "hydra.sweep.subdir") for job in jobs]
        taken: set[str] = set()
        for job, name in zip(jobs, names, strict=True):
            shared = names.count(name) > 1
            place = job.label(besides=name) if shared else name
            while place in taken:
                place = f"{place}_{job.config.hydra.job.num}"
            taken.add(place)
            job.set("hydra.sweep.subdir", place)
            if shared and "name" in job.config and "name" not in job.values:
                job.set("name", place)
        self._direct_output(jobs)

    def _direct_output(self, jobs: list[Job]) -> None:
        """Where a key of the config says where a job writes to, make that differ as the directories do."""
        if self.directory_key is None or self.directory_key in jobs[0].choices:
            return
        if self.directory_key in jobs[0].values:  # the user's folder, one level up
            base = str(OmegaConf.select(self.config, self.directory_key))
            set_value(self.config, "hydra.sweep.dir", base)
        for job in jobs:
            job.set(self.directory_key, str(self._directory(job)))

    def _run_arms(self, jobs: list[Job]) -> None:
        """Run what is not finished of a sweep, and leave with its exit code."""
        from moe_toy.sweep.plan import plan_sweep

        directory, parallel = Path(self.config.hydra.sweep.dir), self.config.hydra.launcher.get("n_jobs", 1)
        parallel = parallel if parallel > 0 else os.cpu_count()
        sweep, jobs = plan_sweep(self.config.sweep_name, directory, jobs, parallel)
        sweep.check()
        waiting = [job for job, arm in zip(jobs, sweep.arms, strict=True) if arm in sweep.unfinished]
        run_stages(self.stages, [job.resolved(self._directory(job)) for job in waiting])
        if waiting:
            sweep.register()
            sweep.show()
            self._launch(waiting)
        sys.exit(sweep.conclude())

    def _directory(self, job: Job) -> Path:
        return Path(self.config.hydra.sweep.dir) / job.config.hydra.sweep.subdir

    def _launch(self, jobs: list[Job]) -> list[Any]:
        """Hand jobs to the launcher; raises what the first of them raised."""
        returns, first = [], 0
        for batch in self.split_overrides_to_chunks([job.overrides for job in jobs], self.max_batch_size):
            results = self.launcher.launch(batch, initial_job_idx=first)
            for result in results:
                _ = result.return_value
            returns.append(results)
            first += len(batch)
        return returns
