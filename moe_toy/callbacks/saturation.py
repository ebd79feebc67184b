"""How far the router has settled."""

from typing import Any
from weakref import ReferenceType, ref

import torch
from lightning.pytorch import LightningModule, Trainer
from pydantic import PositiveInt
from torch import Tensor
from torchmetrics import Metric

from moe_toy.callbacks.base import RoutingCallback, Subject, by_layer
from moe_toy.distributed import join_over_ranks
from moe_toy.metrics.saturation import Saturation
from moe_toy.routing import RoutingTrace
from moe_toy.runs.curve_keys import ROUTER


class SaturationCallback(RoutingCallback):
    """Logs `router/saturation`, the share of choices that are those of the previous validation, over all layers.

    Compared are the first `probe_batches` validation batches of each rank, always the same ones. The first validation
    has nothing to compare with and logs nothing. Checkpoints carry the probes of all ranks, so that a resumed run goes
    on with its curve. `per_layer` adds `router/saturation/layer_03`.
    """

    def __init__(self, *, probe_batches: PositiveInt, per_layer: bool) -> None:
        super().__init__()
        self.probe_batches, self.per_layer = probe_batches, per_layer
        self.probe: list[dict[str, Tensor]] = []
        self.previous: list[dict[str, Tensor]] = []
        self.trainer: ReferenceType[Trainer] | None = None
        """Whose validations these were."""

    def build(self, subject: Subject) -> dict[str, Metric]:
        return {"saturation": Saturation(**subject.sizes)}

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        super().setup(trainer, module, stage)
        if self.trainer is not None and self.trainer() is not trainer:  # a run before, with the same callbacks
            self.previous = []
        self.trainer = ref(trainer)

    def on_validation_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        super().on_validation_epoch_start(trainer, module)
        self.probe = []

    def update(self, outputs: dict[str, Any], trace: RoutingTrace) -> None:
        if len(self.probe) == self.probe_batches:
            return
        now = {"expert_ids": trace.expert_ids.short().cpu(), "token_ids": trace.token_ids.int().cpu()}
        before = next((p for p in self.previous if torch.equal(p["token_ids"], now["token_ids"])), None)
        if before is not None:
            reference = RoutingTrace(**before, num_experts=trace.num_experts, layer_ids=trace.layer_ids)
            self.metrics["saturation"].update(trace, reference)
        self.probe.append(now)

    def on_validation_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self.previous:
            super().on_validation_epoch_end(trainer, module)
        self.previous = self.probe

    def curves(self, scores: dict[str, Any]) -> dict[str, float]:
        key, score = f"{ROUTER}/saturation", scores["saturation"]
        per_layer = by_layer(key, score.layer, self.subject) if self.per_layer else {}
        return {key: score.model.item(), **per_layer}

    def state_dict(self) -> dict[str, Any]:
        return {"previous": join_over_ranks(self.previous)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.previous = state_dict["previous"]
