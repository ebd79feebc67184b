"""The jobs that a command line asks for: one, the grid of --multirun, or the arms of a sweep."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf, open_dict, read_write

from moe_toy.sweep.arm import Arm
from moe_toy.sweep.sweep import Sweep


def jobs(arguments: Sequence[str], grid: Mapping[str, str] | None = None) -> Iterator[list[str]]:
    """The overrides of each job. `grid` is that of the config (`hydra.sweeper.params`); arguments replace its keys."""
    choices: dict[str, list[str]] = {}
    for override in _parse([*(f"{key}={values}" for key, values in (grid or {}).items()), *arguments]):
        key = override.get_key_element()
        if override.is_sweep_override():
            choices[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        elif not override.is_hydra_override():
            choices[key] = [override.input_line]
    return (list(job) for job in itertools.product(*choices.values()))


def compose_sweep(config: str, arguments: Sequence[str]) -> Sweep:
    """The sweep that the arguments name, every arm with the config that Hydra will give it."""
    overrides = _parse(arguments)
    common = compose(config, [o.input_line for o in overrides if not o.is_sweep_override()], return_hydra_config=True)
    grid = common.hydra.sweeper.params or {}
    varied = {*grid, *(o.get_key_element() for o in overrides if o.is_sweep_override())}
    shared = [o.key_or_group for o in overrides if not o.is_hydra_override() and o.get_key_element() not in varied]
    excluded = [*common.hydra.job.config.override_dirname.exclude_keys, *shared]
    naming = f"hydra.job.config.override_dirname.exclude_keys=[{','.join(excluded)}]"
    for_hydra = [*(o.input_line for o in overrides if o.is_hydra_override()), naming]
    arms = []
    for job in jobs(arguments, grid):
        choices = dict(assignment.split("=", 1) for assignment in job)
        resolved = _as_hydra_resolves(config, [*for_hydra, *job])
        arms.append(Arm({key: value for key, value in choices.items() if key in varied}, resolved))
    parallel = common.hydra.launcher.get("n_jobs", 1)
    return Sweep(
        name=common.sweep_name,
        directory=Path(common.hydra.sweep.dir),
        arms=arms,
        parallel=parallel if parallel > 0 else os.cpu_count() or 1,
        naming=naming,
    )


def _as_hydra_resolves(config: str, overrides: list[str]) -> dict[str, Any]:
    """The plain values that a job of a multirun will see."""
    cfg = compose(config, overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    try:
        directory = os.path.abspath(os.path.join(cfg.hydra.sweep.dir, cfg.hydra.sweep.subdir))
        with read_write(cfg.hydra.runtime), open_dict(cfg.hydra.runtime):
            cfg.hydra.runtime.output_dir = directory
        HydraConfig.instance().set_config(cfg)  # it keeps a copy
        task = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
        return OmegaConf.to_container(task, resolve=True)
    finally:
        HydraConfig.instance().cfg = None


def _parse(arguments: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides([a for a in arguments if not a.startswith("-")])
