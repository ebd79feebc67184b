"""A run of `train.py`, or one of its checkpoints, as a model to evaluate."""

from __future__ import annotations

import re
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import torch
import yaml
from jaxtyping import Int
from pydantic import Field, PositiveInt
from torch import Tensor

from moe_toy.balance.base import LoadBalancer
from moe_toy.balance.loss_free import LossFreeBias
from moe_toy.errors import UserError
from moe_toy.evaluation.evaluation import write_report
from moe_toy.evaluation.offloading import Offloading, store_bytes
from moe_toy.evaluation.reading import Reading
from moe_toy.evaluation.settings import Options
from moe_toy.evaluation.target import (
    Limits,
    LoadedModel,
    ModelTarget,
    Observation,
    RunDescription,
    check_device,
    in_eval_mode,
)
from moe_toy.files.reading import reading
from moe_toy.locality.base import LocalityScheme
from moe_toy.locality.cache_prior import CachePrior
from moe_toy.model.config import ModelConfig
from moe_toy.model.cross_entropy import next_token_losses
from moe_toy.model.initial_values import without_memory
from moe_toy.model.transformer import MoETransformer
from moe_toy.results import Results
from moe_toy.runs.checkpoint import BALANCER, Checkpoint, find
from moe_toy.runs.run_directory import CONFIG, TOKENIZER, RunDirectory

KEY = "target.path"
Strength = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=1, allow_inf_nan=False)]


class CheckpointTarget(ModelTarget):
    """`path` is a run directory, whose last checkpoint is taken, or a checkpoint.

    The checkpoint holds the model's own config; its run directory holds the tokenizer, and a `config.yaml` that names
    the balancing scheme. They may come from somebody else: nothing that they name is called but our schemes.
    `cache_prior` is a strength with which it is made to choose what a cache of `cache_ratio` times the active experts
    holds.
    """

    kind = "checkpoint"

    def __init__(
        self,
        *,
        path: str | Path | None,
        device: str | None,
        batch_size: PositiveInt,
        cache_prior: Strength | None = None,
        cache_ratio: Ratio = 2.0,
        options: Options,
    ) -> None:
        if not path:
            raise UserError("target.path is not set; give a checkpoint of train.py or a run directory")
        with reading(path):
            is_run = bool(RunDirectory(Path(path)).candidates())
        self.cache_prior, self.cache_ratio = cache_prior, cache_ratio
        prior = "" if cache_prior is None else f", with cache_prior={cache_prior:g} at cache_ratio={cache_ratio:g}"
        self.source = f"{path}{prior}"
        self.path = find(Path(path), KEY) if is_run else Path(path)
        self.name = Path(path).resolve().name if is_run else self.path.stem
        self.device = device or ("cuda" if torch.cuda.is_available() and options.offload is None else "cpu")
        self.batch_size = batch_size
        self.reading = Reading(options)
        self.offloading = Offloading(options.offload) if options.offload else None

    def check(self) -> None:
        check_device("target.device", self.device)
        with without_memory():
            self._model(*self._saved())
        self.reading.check(self)
        if self.offloading is not None:
            config = self._saved()[0]
            self.offloading.check(config, self.device, self.reading.samples(self))

    def prepare(self, out_dir: Path) -> None:
        self.reading.prepare(self, out_dir)
        if self.offloading is not None:
            self.offloading.prepare(store_bytes(self._saved()[0], self.offloading.settings), out_dir)

    def run(self, out_dir: Path) -> Results:
        results = self.reading.run(self, out_dir)
        if self.offloading is None:
            return results
        return self.offloading.decode(results, lambda: self.load().model, self.reading.samples(self), out_dir)

    def write_report(self, results: Results, out_dir: Path) -> Path:
        report = write_report(results, out_dir)
        if self.offloading is not None:
            self.offloading.remove_parts(out_dir)
        return report

    def identity(self) -> dict[str, Any]:
        offload = {"offload": self.offloading.settings.as_json()} if self.offloading else {}
        return {"file": str(self.path.resolve()), "digest": self._checkpoint.digest, **offload}

    def tokenizer(self) -> Path:
        path = self._run.tokenizer
        if not path.is_file():
            raise UserError(
                f"{self.path} lies in no run directory with a {TOKENIZER}, so its tokenizer is unknown; give "
                "data.tokenizer=FILE.json"
            )
        return path

    def run_description(self) -> RunDescription | None:
        return RunDescription(self._run.path, self._run_config) if self._run_config else None

    def limits(self) -> Limits:
        config, _ = self._saved()
        return Limits(config.vocab_size, config.max_seq_len)

    def load(self) -> LoadedModel:
        config, weights = self._saved()
        model = self._model(config, weights)
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise UserError(f"{self.path} does not fit the model it names: {error}") from error
        return LoadedCheckpoint(model.to(self.device))

    def _model(self, config: ModelConfig, weights: dict[str, Tensor]) -> MoETransformer:
        return MoETransformer(config, self._balancer(config, weights), self._locality(config.moe.top_k))

    def _locality(self, top_k: int) -> LocalityScheme:
        if self.cache_prior is None:
            return self._checkpoint.locality
        capacity = self.cache_ratio * top_k
        if capacity % 1:
            raise UserError(
                f"target.cache_ratio ({self.cache_ratio:g}) times the {top_k} experts that a token activates is no "
                f"whole number of experts; give {round(capacity) / top_k:g}"
            )
        return CachePrior(self._checkpoint.locality, strength=self.cache_prior, capacity=int(capacity))

    def _saved(self) -> tuple[ModelConfig, dict[str, Tensor]]:
        return self._checkpoint.model_config, self._checkpoint.weights

    @cached_property
    def _checkpoint(self) -> Checkpoint:
        return Checkpoint.open(self.path, KEY)

    def _balancer(self, config: ModelConfig, weights: dict[str, Tensor]) -> LoadBalancer:
        """Only schemes with a saved state, such as a bias on the selection, matter to a trained model."""
        sizes = {"num_layers": len(config.moe_layers), "num_experts": config.moe.num_experts}
        saved = {name for name in weights if name.startswith(BALANCER)}
        if not saved:
            return LoadBalancer(**sizes)
        if "balance" in self._run_config:
            return self._scheme(self._run_config["balance"], sizes)
        if saved == {f"{BALANCER}bias"}:
            return LossFreeBias(rate=1.0, **sizes)  # the rate matters to training only
        raise UserError(
            f"{self.path} was trained with a balancing scheme whose settings are in the {CONFIG} of its run "
            "directory, which is not there; leave the checkpoint in its run directory"
        )

    def _scheme(self, settings: Any, sizes: dict[str, int]) -> LoadBalancer:
        """What `balance` in the run's config names, if that is a class of `moe_toy.balance`."""
        place = self._run.config
        target = settings.get("_target_") if isinstance(settings, dict) else None
        named = re.fullmatch(r"(moe_toy\.balance\.\w+)\.(\w+)", target) if isinstance(target, str) else None
        try:
            scheme = getattr(import_module(named[1]), named[2]) if named else None
        except (ImportError, AttributeError):
            scheme = None
        if not (isinstance(scheme, type) and issubclass(scheme, LoadBalancer)):
            raise UserError(f"{place}: balance._target_ is no balancing scheme of ours, given {target!r}; mend it")
        try:
            return scheme(**{key: value for key, value in settings.items() if key != "_target_"} | sizes)
        except (TypeError, ValueError) as error:
            raise UserError(f"{place}: balance does not fit {named[2]} ({' '.join(str(error).split())})") from error

    @property
    def _run(self) -> RunDirectory:
        return RunDirectory.of(self.path)

    @cached_property
    def _run_config(self) -> dict[str, Any]:
        path = self._run.config
        if not path.is_file():
            return {}
        with reading(path):
            try:
                config = yaml.safe_load(path.read_text())
            except (yaml.YAMLError, ValueError, RecursionError) as error:
                raise UserError(f"{path} is not YAML ({' '.join(str(error).split())}); mend or remove it") from error
        if not isinstance(config, dict):
            raise UserError(f"{path} holds no keys with values; mend or remove it")
        return config


class LoadedCheckpoint(LoadedModel):
    def __init__(self, model: MoETransformer) -> None:
        self.model = model
        self.vocab_size = model.config.vocab_size
        self.total_parameters = model.config.total_parameters
        self.active_parameters = model.config.active_parameters

    @torch.inference_mode()
    def observe(self, token_ids: Int[Tensor, "batch seq"]) -> Observation:
        token_ids = token_ids.to(self.model.rotation.device)
        with in_eval_mode(self.model):
            output = self.model(token_ids, with_predictions=True)
        return Observation(output.trace, next_token_losses(output.logits, token_ids))
