"""A checkpoint of ours, verified once, as resuming, evaluation and export use it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from textwrap import shorten
from typing import Any

from torch import Tensor, nn

from moe_toy.errors import UserError
from moe_toy.files.digest import file_digest
from moe_toy.files.reading import reading
from moe_toy.locality.base import LocalityScheme
from moe_toy.locality.limits import limit_of
from moe_toy.model.config import ModelConfig, MoEConfig
from moe_toy.model.transformer import MoETransformer
from moe_toy.runs.checkpoint_file import DamagedError, load_intact
from moe_toy.runs.run_directory import CHECKPOINTS, LAST, RunDirectory
from moe_toy.runs.sharded_checkpoint import CHECKSUMS, REST, check_sealed, is_sharded, read_shapes, read_weights

log = logging.getLogger(__name__)
AUTO = "auto"
"""What `ckpt_path` says for the newest undamaged checkpoint of the run directory."""
PREFIX = "model."
BALANCER = "balancer."
SELECTION_BIAS = f"{BALANCER}bias"
UNSHAPED = ("rope_base", "norm_eps", "moe.router", "moe.top_k", "moe.normalize_weights")
"""What the shapes of weights do not tell of the model that they belong to."""
WAY_OUT = "give a checkpoint of train.py or the run directory that holds it"


@dataclass(frozen=True)
class Checkpoint:
    """What `path`, given as `key`, holds. Tensors of a file are mapped, not read, as long as this object lives;
    `content` of a folder of shards has the shapes of the weights only."""

    path: Path
    key: str
    content: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path, key: str = "ckpt_path") -> Checkpoint:
        """Verify the checkpoint at `path`, a file, a folder of shards, or a run directory, whose last one is meant.

        Only tensors and plain values are unpickled. Raises `UserError` where there is none or it is damaged.
        """
        path = find(Path(path), key)
        try:
            with reading(path):
                return cls._verified(path, key)
        except DamagedError as error:
            raise UserError(
                f"{key}: {path} is damaged or not a checkpoint of ours ({error}); pass another one"
            ) from error

    @classmethod
    def open_newest(cls, run: RunDirectory, given: str) -> Checkpoint | None:
        """The newest undamaged checkpoint of a run, or None if it has none at all; `given` is the value of `ckpt_path`.

        Each damaged one is told of.
        """
        paths = run.candidates()
        for path in paths:
            try:
                return cls._verified(path, "ckpt_path")
            except (DamagedError, OSError) as error:
                log.warning("%s is damaged (%s); going back to the one before", path, error)
        if paths:
            raise UserError(
                f"ckpt_path={given}: every checkpoint in {run.checkpoints} is damaged; restore one of them, or start "
                "a new run elsewhere"
            )
        return None

    @classmethod
    def open_to_continue(cls, path: str | Path) -> Checkpoint:
        """What `ckpt_path` means: of a run directory its newest undamaged checkpoint, else as `open`."""
        run = RunDirectory(Path(path))
        with reading(path):
            found = None if is_sharded(run.path) else cls.open_newest(run, str(path))
        return found or cls.open(path)

    @classmethod
    def _verified(cls, path: Path, key: str) -> Checkpoint:
        if path.is_dir():
            check_sealed(path)
            content = {**load_intact(path / REST), "state_dict": read_shapes(path)}
        else:
            content = load_intact(path)
        state = content.get("state_dict") if isinstance(content, dict) else None
        if not isinstance(state, dict) or not all(
            isinstance(tensor, Tensor) and isinstance(name, str) for name, tensor in state.items()
        ):
            raise UserError(f"{key}: {path} holds no training state; pass a checkpoint that train.py wrote")
        return cls(path, key, content)

    @property
    def is_sharded(self) -> bool:
        return self.path.is_dir()

    @property
    def digest(self) -> str:
        """Of all that it holds; of a folder that of its checksums, against which it was verified."""
        return file_digest(self.path / CHECKSUMS if self.is_sharded else self.path)

    @property
    def run(self) -> RunDirectory:
        return RunDirectory.of(self.path)

    @property
    def loggers(self) -> dict[str, Any]:
        """What it takes to go on with the curves of the run."""
        return self.content.get("loggers", {})

    @property
    def optimizer(self) -> dict[str, Any] | None:
        """The settings of the optimiser; None where only weights were kept."""
        return self.content.get("hyper_parameters", {}).get("optimizer")

    @property
    def model_config(self) -> ModelConfig:
        """The config of the model that was saved, which every checkpoint of ours carries."""
        try:
            saved = self.content["hyper_parameters"]["model"]
            # Older ones do not say whether to compile, which is no part of what was trained.
            return ModelConfig(**{"compile": "auto", **saved, "moe": MoEConfig(**saved["moe"])})
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.key}: {self.path} carries no model config of ours; pass one that train.py wrote"
            ) from error

    @property
    def locality(self) -> LocalityScheme:
        """What limits the choices of the model that was saved; where nothing does, the scheme "none"."""
        try:
            return limit_of(self.content.get("hyper_parameters", {}).get("locality", {}))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.key}: {self.path} names a locality scheme that is none of ours ({shorten(str(error), 200)}); "
                "pass one that train.py wrote"
            ) from error

    @property
    def shapes(self) -> dict[str, Tensor]:
        """The state of the model, its balancer's included; of shards without values."""
        return _of_model(self.content["state_dict"])

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """The state of the model, its balancer's included, on the CPU."""
        if not self.is_sharded:
            return self.shapes
        try:
            return _of_model(read_weights(self.path))
        except DamagedError as error:
            raise UserError(f"{self.key}: {self.path} is damaged ({error}); pass another one") from error

    def load_into(self, model: nn.Module) -> None:
        """Give `model` these weights, and its balancer the state of theirs if that was saved too."""
        wanted = model.state_dict()
        model.load_state_dict({name: x for name, x in self.weights.items() if name in wanted}, strict=False)

    def check_continues(self, model: MoETransformer, limit: dict[str, Any], optimizer: dict[str, Any]) -> None:
        """Refuse to go on with another model, limit to its choices or optimiser than the saved ones."""
        self.check_shapes(self.shapes, model.state_dict())
        if limit != self.locality.settings:
            raise UserError(
                f"locality limits choices by {limit or 'nothing'}, but {self.path} goes on with "
                f"{self.locality.settings or 'nothing'}; leave it, or start anew from its weights: "
                f"init_from={self.path} in another hydra.run.dir"
            )
        saved = self.optimizer
        if saved is None:
            raise UserError(
                f"ckpt_path: {self.path} holds weights only, which a run can start from: init_from={self.path}"
            )
        of_optimizer = {f"optimizer.{key}": (saved.get(key), value) for key, value in optimizer.items()}
        for key, (was, now) in {**self.changes(model.config), **of_optimizer}.items():
            if was != now:
                raise UserError(
                    f"{key}={now} differs from {was}, with which {self.path} goes on; "
                    f"leave it, or start anew from its weights: init_from={self.path} in another hydra.run.dir"
                )

    def changes(self, config: ModelConfig) -> dict[str, tuple[Any, Any]]:
        """By key, what these weights were trained with and what `config` says instead, where shapes do not tell."""
        if "model" not in self.content.get("hyper_parameters", {}):
            return {}
        pairs = {key: tuple(map(attrgetter(key), (self.model_config, config))) for key in UNSHAPED}
        named = {key if key.startswith("moe.") else f"model.{key}": pair for key, pair in pairs.items()}
        return {key: (was, now) for key, (was, now) in named.items() if was != now}

    def check_weights_fit(self, model: nn.Module) -> None:
        """Refuse to start another model than the saved one from these weights. Balancers may differ."""
        saved, wanted = (
            {name: tensor for name, tensor in state.items() if not name.startswith(BALANCER)}
            for state in (self.shapes, model.state_dict())
        )
        self.check_shapes(saved, wanted)

    def check_shapes(
        self,
        saved_state: dict[str, Tensor],
        wanted_state: dict[str, Tensor],
        way_out: str = "use the model and moe settings it was trained with",
    ) -> None:
        """Raise `UserError` unless what is saved is exactly the wanted tensors."""
        saved, wanted = (
            {name: tuple(tensor.shape) for name, tensor in state.items()} for state in (saved_state, wanted_state)
        )
        for name in sorted(saved.keys() | wanted.keys()):
            if saved.get(name) != wanted.get(name):
                raise UserError(
                    f"{self.key}: {self.path} does not fit this model: {name} is {saved.get(name, 'absent')} in the "
                    f"checkpoint and {wanted.get(name, 'absent')} in the config; {way_out}"
                )


def find(path: Path, key: str) -> Path:
    """The checkpoint that `path` means: itself, or of a run directory its last one."""
    with reading(path):
        if path.is_file() or is_sharded(path):
            return path
        if not path.exists():
            what = "a link to nothing" if path.is_symlink() else "no such file"
            raise UserError(f"{key}: {what}, given {path}; {WAY_OUT}")
        run = RunDirectory(path.parent if path.name == CHECKPOINTS else path)
        if run.last.exists():
            return run.last
        if candidates := run.candidates():
            return candidates[0]
    raise UserError(f"{key}: {path} is a folder without {CHECKPOINTS}/{LAST}, so no run directory; {WAY_OUT}")


def _of_model(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(PREFIX): tensor for name, tensor in state.items() if name.startswith(PREFIX)}
