"""Domain specialization: how unevenly an expert is used across domains.

(Liang et al. 2025, arXiv 2505.16056)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from moe_toy.metrics.activation import SEGMENT_LENGTH, check_segment_length, segment_activations
from moe_toy.metrics.base import RoutingMetric
from moe_toy.metrics.correlation import correlation_matrix
from moe_toy.routing import RoutingTrace

DOMAIN_FLOOR = 1e-5
"""An activation rate that is none, as in the published code."""


@dataclass(frozen=True)
class DomainScores:
    value: Float64[Tensor, "layer expert"]
    """Standard deviation over mean, across domains, of the activation rate; NaN with fewer than two domains."""
    mean: Float64[Tensor, ""]
    """Over the experts where it is defined."""
    dropped_domains: Int64[Tensor, "layer expert"]
    """How many domains the floor left out: an expert at home in one domain only has no value at all."""
    undefined_experts: Int64[Tensor, ""]
    activation_rate: Float64[Tensor, "domain layer expert"]
    """Share of the (segment, token) pairs in which the expert is active."""
    preferred_domain: Int64[Tensor, "layer expert"]
    """In which domain the expert is most active, the first of equals; -1 if it is active in none."""
    experts_of: Float64[Tensor, " domain"]
    """Which share of the experts that are active at all prefers each domain; sums to 1. NaN for a domain without a
    segment, and if no expert is active."""
    domain_correlation: Float64[Tensor, "domain domain"]
    """Pearson correlation, over all experts, of the activation rates in two domains."""


def domain_scores(activation_rate: Float64[Tensor, "domain layer expert"], floor: float = DOMAIN_FLOOR) -> DomainScores:
    """Score activation rates; a domain in which an expert's rate is at most `floor` does not count for it."""
    kept = activation_rate > floor
    num_kept = kept.sum(0)
    mean = activation_rate.where(kept, 0.0).sum(0) / num_kept
    variance = (activation_rate - mean).square().where(kept, 0.0).sum(0) / (num_kept - 1)
    value = (variance.sqrt() / mean).where(num_kept >= 2, torch.nan)
    without_text = activation_rate.flatten(1).isnan().all(1)
    known = activation_rate.nan_to_num(0.0)
    preferred = known.argmax(0).where(known.amax(0) > 0, -1)
    experts_of = torch.stack([(preferred == domain).sum() for domain in range(len(activation_rate))])
    return DomainScores(
        value=value,
        mean=value.nanmean(),
        dropped_domains=(activation_rate <= floor).sum(0),
        undefined_experts=value.isnan().sum(),
        activation_rate=activation_rate,
        preferred_domain=preferred,
        experts_of=(experts_of / (preferred >= 0).sum().double()).masked_fill(without_text, torch.nan),
        domain_correlation=correlation_matrix(activation_rate),
    )


class DomainSpecialization(RoutingMetric):
    """Domain specialization of every expert. Activations are weighted by the segments that hold them, as in SRP."""

    activations: Int64[Tensor, "domain layer expert"]
    slots: Int64[Tensor, " domain"]

    def __init__(
        self,
        *,
        num_layers: int,
        num_experts: int,
        num_domains: int = 1,
        floor: float = DOMAIN_FLOOR,
        segment_length: int = SEGMENT_LENGTH,
    ) -> None:
        super().__init__(num_layers=num_layers, num_experts=num_experts, num_domains=num_domains)
        check_segment_length(segment_length)
        self.floor = floor
        self.segment_length = segment_length
        self.add_count("activations", num_domains, num_layers, num_experts)
        self.add_count("slots", num_domains)

    def update(self, trace: RoutingTrace) -> None:
        domains = self.domains_of(trace)
        activations = segment_activations(trace.expert_ids, self.num_experts, self.segment_length)
        slots = self.segment_length * max(trace.expert_ids.shape[2] - self.segment_length + 1, 0)
        self.activations.index_add_(0, domains, activations)
        self.slots.index_add_(0, domains, torch.full_like(domains, slots))

    def compute(self) -> DomainScores:
        return domain_scores(self.activations / self.slots.double()[:, None, None], self.floor)
