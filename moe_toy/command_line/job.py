"""One job of a multirun, before it is launched."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, flag_override

from moe_toy.command_line.entry import in_quotes
from moe_toy.command_line.preflight import resolve_job
from moe_toy.runs.run_name import run_name


@dataclass
class Job:
    overrides: list[str]
    """What a launcher is given."""
    values: dict[str, str]
    """The value of each key on the command line or in the config's grid, as it stands there."""
    choices: dict[str, str]
    """The same of the keys that differ between jobs."""
    config: DictConfig
    """As Hydra composes it."""

    def set(self, key: str, value: str) -> None:
        """Override one more key, here and in the process that will run the job."""
        self.overrides = [override for override in self.overrides if override.partition("=")[0] != key]
        self.overrides.append(f"{key}={in_quotes(value)}")
        set_value(self.config, key, value)

    def label(self, besides: str) -> str:
        """What it varies, as a name for a folder, after the name that it shares with others."""
        varied = run_name(",".join(f"{key}={value}" for key, value in self.choices.items() if key != "name"))
        return varied if besides == run_name("") else f"{besides},{varied}"

    def resolved(self, directory: Path | None = None) -> DictConfig:
        """The values that the job will see if it has this directory."""
        return resolve_job(self.config, directory and str(directory))


def set_value(config: DictConfig, key: str, value: str | int) -> None:
    """Change a config that Hydra has made read-only, its own part included."""
    flags, free = ["readonly", "struct"], [False, False]
    with flag_override(config, flags, free), flag_override(config.hydra, flags, free):
        OmegaConf.update(config, key, value)
