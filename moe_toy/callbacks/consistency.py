"""Local routing consistency: how well one set of experts serves consecutive tokens."""

from collections.abc import Sequence
from typing import Any

from pydantic import PositiveInt
from torch import Tensor
from torchmetrics import Metric

from moe_toy.callbacks.base import RoutingCallback, Subject, by_domain, by_layer
from moe_toy.metrics.shuffled import ShuffledSRP
from moe_toy.metrics.srp import SRP
from moe_toy.runs.curve_keys import CONSISTENCY


class SegmentConsistencyCallback(RoutingCallback):
    """Logs `consistency/srp@{m}` for every segment length m, those in `detailed` among them; for the latter also per
    layer and per domain, a histogram over experts, and how much of it is locality: `consistency/above_sequence@{m}`
    over the same routing with the tokens of each sequence shuffled, `consistency/above_corpus@{m}` over that with all
    tokens shuffled.
    """

    def __init__(self, *, segment_lengths: Sequence[PositiveInt], detailed: Sequence[PositiveInt]) -> None:
        super().__init__()
        self.segment_lengths, self.detailed = tuple(dict.fromkeys([*segment_lengths, *detailed])), tuple(detailed)

    def build(self, subject: Subject) -> dict[str, Metric]:
        shuffled = {f"shuffled@{m}": ShuffledSRP(**subject.sizes, segment_length=m) for m in self.detailed}
        return {f"srp@{m}": SRP(**subject.shape, segment_length=m) for m in self.segment_lengths} | shuffled

    def curves(self, scores: dict[str, Any]) -> dict[str, float]:
        curves = {}
        for m in self.segment_lengths:
            key, score = f"{CONSISTENCY}/srp@{m}", scores[f"srp@{m}"]
            curves[key] = score.model.srp.item()
            if m in self.detailed:
                curves |= by_layer(key, score.layer.srp, self.subject)
                curves |= by_domain(key, score.model_by_domain.srp, self.subject)
                shuffled = scores[f"shuffled@{m}"]
                curves[f"{CONSISTENCY}/above_sequence@{m}"] = (score.model.srp - shuffled.sequence).item()
                curves[f"{CONSISTENCY}/above_corpus@{m}"] = (score.model.srp - shuffled.corpus).item()
        return curves

    def histograms(self, scores: dict[str, Any]) -> dict[str, Tensor]:
        return {f"{CONSISTENCY}/experts/srp@{m}": scores[f"srp@{m}"].expert.srp for m in self.detailed}
