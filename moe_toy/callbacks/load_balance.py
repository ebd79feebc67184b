"""How evenly experts are used, over the validation set and within each of its sequences."""

import logging
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from pydantic import NonNegativeFloat, PositiveInt
from torchmetrics import Metric

from moe_toy.callbacks.base import RoutingCallback, Subject, by_layer
from moe_toy.metrics.load_balance import LoadBalance
from moe_toy.runs.curve_keys import LOAD

log = logging.getLogger(__name__)
FIRST = 2
"""How many of the curves by layer stay where there are many layers."""


class LoadBalanceCallback(RoutingCallback):
    """Logs, as mean over layers and, with `per_layer`, for each (`/layer_03`):

    `load/cv` and `load/max_violation` over the whole validation set (global balance), the same with `@sequence` within
    each sequence and `load/cv@{m}` within segments of m tokens (local balance), and `load/effective_experts`, how many
    evenly used experts would have the entropy of the load. Of models of many layers, only `load/cv` and
    `load/effective_experts` by layer. `load/dead_experts` is a sum over layers; it warns where they are more than
    `warn_dead_fraction` of a layer. `load/largest_share` is the largest share of tokens that one expert of any layer
    serves.
    """

    def __init__(self, *, segment_length: PositiveInt, per_layer: bool, warn_dead_fraction: NonNegativeFloat) -> None:
        super().__init__()
        self.segment_length, self.per_layer = segment_length, per_layer
        self.warn_above = warn_dead_fraction

    def build(self, subject: Subject) -> dict[str, Metric]:
        return {"load": LoadBalance(**subject.shape, segment_length=self.segment_length)}

    def curves(self, scores: dict[str, Any]) -> dict[str, float]:
        score = scores["load"].overall
        by_detail = {
            f"{LOAD}/cv": score.cv,
            f"{LOAD}/effective_experts": score.effective_experts,
            f"{LOAD}/max_violation": score.max_violation,
            f"{LOAD}/max_violation@sequence": score.sequence_max_violation,
            f"{LOAD}/cv@sequence": score.sequence_cv,
            f"{LOAD}/cv@{self.segment_length}": score.segment_cv,
        }
        warn_of_collapse(dict(zip(self.subject.layer_ids, score.dead_fraction.tolist(), strict=True)), self.warn_above)
        curves = {
            f"{LOAD}/dead_experts": score.dead_experts.sum().item(),
            f"{LOAD}/largest_share": score.largest_share.max().item(),
        }
        for number, (key, values) in enumerate(by_detail.items()):
            curves[key] = values.mean().item()
            if self.per_layer and (number < FIRST or not self.subject.is_deep):
                curves |= by_layer(key, values, self.subject)
        return curves


@rank_zero_only
def warn_of_collapse(dead_fraction: dict[int, float], warn_above: float) -> None:
    """A run whose routing collapses goes on, since that may be what is studied, but not in silence."""
    for layer, fraction in dead_fraction.items():
        if fraction > warn_above:
            log.warning("routing collapses: %.0f %% of the experts of layer %d serve no token", 100 * fraction, layer)
