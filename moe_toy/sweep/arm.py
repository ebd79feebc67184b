"""One arm of a sweep: what it varies, its config, and whether its directory belongs to that config."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from moe_toy.errors import UserError
from moe_toy.files.reading import reading
from moe_toy.model.config import ModelConfig, MoEConfig
from moe_toy.runs.run_directory import RunDirectory
from moe_toy.sweep.record import Record, read_record

SEED = "seed"
BASE = "base"
"""The name of an arm that varies nothing but the seed."""
WITHOUT_EFFECT = (
    "callbacks.checkpoint.in_background",
    "ckpt_path",
    "data.num_workers",
    "data.root",
    "data.source.archives",
    "data.source.root",
    "logger",
    "model.activation_checkpointing",
    "model.compile",
    "name",
    "run_dir",
    "sweep_name",
    "threads",
    "trainer.default_root_dir",
    "trainer.enable_progress_bar",
)
"""May differ between the tries of an arm: they change what it computes by rounding at most."""


@dataclass(frozen=True)
class Arm:
    choices: Mapping[str, str]
    """What it varied when it was first asked for: a value, as on the command line, for each key."""
    config: dict[str, Any]
    """Resolved."""

    @property
    def directory(self) -> Path:
        return Path(self.config["run_dir"])

    @property
    def name(self) -> str:
        """What it varies but for the seed."""
        choices = {key: value for key, value in sorted(self.choices.items()) if key != SEED}
        if choices.keys() == {"arm"}:
            return choices["arm"]
        return ",".join(f"{key}={value}" for key, value in choices.items()) or BASE

    @property
    def seed(self) -> int:
        return self.config[SEED]

    @property
    def record(self) -> Record:
        return read_record(self.directory)

    @cached_property
    def model(self) -> ModelConfig:
        return ModelConfig(**{**self.config["model"], "moe": MoEConfig(**self.config["moe"])})

    @property
    def flops_per_token(self) -> int:
        return self.model.flops_per_token(self.config["data"]["sequence_length"])

    def changes(self) -> list[str]:
        """How its config differs from the one that its directory was made with."""
        path = RunDirectory(self.directory).config
        with reading(path):
            try:
                text = path.read_text()
                moved = text.replace(str(yaml.safe_load(text)["run_dir"]), str(self.directory))  # it may have been
                before, now = dict(flat(yaml.safe_load(moved))), dict(flat(self.config))
            except FileNotFoundError:
                return []
            except (yaml.YAMLError, ValueError, TypeError, KeyError, RecursionError):
                raise UserError(
                    f"{path} is damaged; remove it if the config of this arm is as it was, or remove {self.directory} "
                    "to train it anew"
                ) from None
        return [
            f"{key} was {before.get(key, 'absent')}, is now {now.get(key, 'absent')}"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key) and has_effect(key)
        ]


def identify(config: Mapping[str, Any]) -> str:
    """A digest of all values of a resolved config that have an effect on what the arm computes."""
    values = {key: value for key, value in flat(dict(config)) if has_effect(key)}
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def has_effect(key: str) -> bool:
    return not f"{key}.".startswith(tuple(f"{other}." for other in WITHOUT_EFFECT))


def flat(config: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Every leaf of a nested config by its dotted key."""
    if isinstance(config, dict) and config:
        for key, value in config.items():
            yield from flat(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, config
