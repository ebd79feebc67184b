"""From the jobs of a command to the arms of a sweep, each with the directory that is its own."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from moe_toy.command_line.job import Job
from moe_toy.errors import UserError
from moe_toy.runs.run_name import run_name
from moe_toy.sweep.arm import SEED, Arm, identify
from moe_toy.sweep.record import RECORD, Record, read_record
from moe_toy.sweep.sweep import Sweep


def plan_sweep(name: str, directory: Path, jobs: Sequence[Job], parallel: int) -> tuple[Sweep, list[Job]]:
    """The arms that these jobs are, and the jobs, each directed to the directory of its arm.

    What an arm is does not depend on the command that asks for it: a config that has a directory in the sweep already
    goes there, and one that is asked for twice is one arm. A new one is named by what it varies or other arms vary, in
    the order of the alphabet, and always by its seed.
    """
    known = _known_arms(directory)
    varied_before = {key for record in known.values() for key in record.choices}
    arms, kept, places = [], [], {record.identity: place for place, record in known.items()}
    for job in jobs:
        values = OmegaConf.to_container(job.resolved())
        identity = identify(values)
        if any(identify(arm.config) == identity for arm in arms):
            continue
        choices = {key: value for key, value in job.values.items() if key in {*job.choices, *varied_before}}
        if identity in places:
            choices = known[places[identity]].choices
        else:
            choices = {**choices, SEED: str(values[SEED])}
            place = run_name(",".join(f"{key}={choices[key]}" for key in sorted(choices)))
            shared = place in {arm.directory.name for arm in arms}  # of what is no name for a folder, such as a slash
            places[identity] = f"{place}-{identity[:8]}" if shared else place
        job.set("hydra.sweep.subdir", places[identity])
        if "name" not in job.values:
            job.set("name", places[identity])
        arms.append(Arm(choices, OmegaConf.to_container(job.resolved(directory / places[identity]))))
        kept.append(job)
    return Sweep(name, directory, arms, parallel), kept


def _known_arms(directory: Path) -> dict[str, Record]:
    """What the directories of a sweep's arms say of themselves, by their names."""
    records = {path.parent.name: read_record(path.parent) for path in sorted(directory.glob(f"*/{RECORD}"))}
    for place, record in records.items():
        if record.identity is None and record != Record():  # what is damaged says nothing
            raise UserError(
                f"{directory / place} was trained by an earlier version, which did not say what it is; start another "
                "sweep with sweep_name=..., or remove it"
            )
    return {place: record for place, record in records.items() if record.identity is not None}
