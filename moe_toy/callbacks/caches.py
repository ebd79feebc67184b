"""What an expert cache would hit."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import PositiveFloat, PositiveInt
from torchmetrics import Metric

from moe_toy.callbacks.base import RoutingCallback, Subject
from moe_toy.metrics.cache import CacheHitRate, Policy
from moe_toy.metrics.correlation import pearson
from moe_toy.metrics.srp import SRP
from moe_toy.runs.curve_keys import CACHE, CORRELATION


class CacheCallback(RoutingCallback):
    """Logs hit rates of one cache for the whole model, mean over domains.

    `cache_ratios` says for each policy at which capacities, relative to the experts that a token activates:
    `cache/sch@16/ratio_1.5`, `cache/lru/ratio_2`. For each of SCH also `correlation/srp@16/sch_ratio_1.5`,
    Pearson's r with SRP over (layer, domain), there with one cache per layer. NaN where a ratio is no whole number of
    experts. Only every `sample_stride`-th sequence of a domain is simulated.

    `engine_ratios` ask for an LRU cache as an engine has it, layer after layer, where the first request for an expert
    in a sequence is a miss: `cache/lru@layer/ratio_2`. With it comes `cache/cold_misses`, the share of such requests,
    which no cache can hit.
    """

    def __init__(
        self,
        *,
        segment_length: PositiveInt,
        cache_ratios: Mapping[Policy, Sequence[PositiveFloat]],
        engine_ratios: Sequence[PositiveFloat] = (),
        sample_stride: PositiveInt,
    ) -> None:
        super().__init__()
        self.segment_length, self.sample_stride = segment_length, sample_stride
        self.cache_ratios = {policy: tuple(ratios) for policy, ratios in cache_ratios.items()}
        self.engine_ratios = tuple(engine_ratios)

    def build(self, subject: Subject) -> dict[str, Metric]:
        options = {"segment_length": self.segment_length, "sample_stride": self.sample_stride, "top_k": subject.top_k}
        metrics: dict[str, Metric] = {
            policy: CacheHitRate(**subject.shape, **options, policy=policy, scope="model")
            for policy in self.cache_ratios
        }
        if "sch" in self.cache_ratios:
            metrics["sch_by_layer"] = CacheHitRate(**subject.shape, **options, policy="sch", scope="layer")
            metrics["srp"] = SRP(**subject.shape, segment_length=self.segment_length)
        if self.engine_ratios:
            metrics["engine"] = CacheHitRate(
                **subject.shape, **options, policy="lru", scope="model", order="layer", cold="miss"
            )
        return metrics

    def curves(self, scores: dict[str, Any]) -> dict[str, float]:
        curves = {}
        for policy, ratios in self.cache_ratios.items():
            name = f"sch@{self.segment_length}" if policy == "sch" else policy
            for ratio in ratios:
                curves[f"{CACHE}/{name}/ratio_{ratio:g}"] = scores[policy].at_ratio(ratio).item()
        for ratio in self.engine_ratios:
            curves[f"{CACHE}/lru@layer/ratio_{ratio:g}"] = scores["engine"].at_ratio(ratio).item()
            curves[f"{CACHE}/cold_misses"] = 1 - scores["engine"].hit_rate[0, -1].item()
        for ratio in self.cache_ratios.get("sch", ()):
            hit_rate = scores["sch_by_layer"].at_ratio(ratio, by_domain=True)
            r = pearson(scores["srp"].layer_by_domain.srp, hit_rate)
            curves[f"{CORRELATION}/srp@{self.segment_length}/sch_ratio_{ratio:g}"] = r.item()
        return curves
