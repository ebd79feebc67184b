"""What experts specialise in: domains of text, or tokens of the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchmetrics import Metric

from moe_toy.callbacks.base import RoutingCallback, Subject
from moe_toy.metrics.specialization import DomainSpecialization
from moe_toy.metrics.vocabulary import VocabularySpecialization

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class DomainSpecializationCallback(RoutingCallback):
    """Logs `routing/domain_specialization`, the mean over experts, and how many experts have none
    (`routing/domain_specialization/undefined_experts`); draws how active each expert is in each domain."""

    def build(self, subject: Subject) -> dict[str, Metric]:
        return {"domain": DomainSpecialization(**subject.shape)}

    def curves(self, scores: dict[str, Any]) -> dict[str, float]:
        key, score = "routing/domain_specialization", scores["domain"]
        return {key: score.mean.item(), f"{key}/undefined_experts": score.undefined_experts.item()}

    def figures(self, scores: dict[str, Any]) -> dict[str, Figure]:
        from moe_toy.report.heatmaps import expert_by_domain

        rates = scores["domain"].activation_rate
        return {"routing/experts_by_domain": expert_by_domain(rates, self.subject.domains, self.subject.layer_ids)}


class VocabularySpecializationCallback(RoutingCallback):
    """Logs `routing/vocabulary_specialization/{input,predicted,target}`, the mean over experts."""

    def build(self, subject: Subject) -> dict[str, Metric]:
        return {
            "vocabulary": VocabularySpecialization(
                num_layers=len(subject.layer_ids), num_experts=subject.num_experts, vocab_size=subject.vocab_size
            )
        }

    def curves(self, scores: dict[str, Any]) -> dict[str, float]:
        return {
            f"routing/vocabulary_specialization/{kind}": score.mean.item()
            for kind, score in scores["vocabulary"].items()
        }
