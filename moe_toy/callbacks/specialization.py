"""What experts specialise in: domains of text, or tokens of the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer
from pydantic import PositiveInt
from torchmetrics import Metric

from moe_toy.callbacks.base import RoutingCallback, Subject, log_table
from moe_toy.metrics.correlation import pearson
from moe_toy.metrics.specialization import DomainSpecialization
from moe_toy.metrics.srp import SRP
from moe_toy.metrics.vocabulary import VocabularySpecialization, strongest_tokens

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAYERS_PER_FIGURE = 8


class DomainSpecializationCallback(RoutingCallback):
    """Logs `routing/domain_specialization`, the mean over experts, how many experts have none
    (`routing/domain_specialization/undefined_experts`) and its correlation with SRP over all experts
    (`routing/srp_correlation@{m}/domain`). Draws how active each expert is in each domain, eight layers a picture."""

    def __init__(self, *, segment_length: PositiveInt) -> None:
        super().__init__()
        self.segment_length = segment_length

    def build(self, subject: Subject) -> dict[str, Metric]:
        return {
            "domain": DomainSpecialization(**subject.shape, segment_length=self.segment_length),
            "srp": SRP(**subject.shape, segment_length=self.segment_length),
        }

    def curves(self, scores: dict[str, Any]) -> dict[str, float]:
        key, score = "routing/domain_specialization", scores["domain"]
        correlation = pearson(score.value, scores["srp"].expert.srp)
        return {
            key: score.mean.item(),
            f"{key}/undefined_experts": score.undefined_experts.item(),
            f"routing/srp_correlation@{self.segment_length}/domain": correlation.item(),
        }

    def figures(self, scores: dict[str, Any]) -> dict[str, Figure]:
        from moe_toy.pictures.heatmaps import expert_by_domain

        rates, layers = scores["domain"].activation_rate, self.subject.layer_ids
        figures = {}
        for first in range(0, len(layers), LAYERS_PER_FIGURE):
            rows = slice(first, first + LAYERS_PER_FIGURE)
            key = f"routing/experts_by_domain/layers_{layers[rows][0]:02d}-{layers[rows][-1]:02d}"
            figures[key] = expert_by_domain(rates[:, rows], self.subject.domains, layers[rows])
        return figures


class VocabularySpecializationCallback(RoutingCallback):
    """Logs `routing/vocabulary_specialization/{input,predicted,target}`, the mean over experts, and its correlation
    with SRP over all experts (`routing/srp_correlation@{m}/input` ...). When training ends, the strongest tokens of
    every expert become the table `routing/strongest_tokens`, also kept as `strongest_tokens.csv`."""

    needs_predictions = True

    def __init__(self, *, segment_length: PositiveInt) -> None:
        super().__init__()
        self.segment_length = segment_length

    def build(self, subject: Subject) -> dict[str, Metric]:
        return {
            "vocabulary": VocabularySpecialization(**subject.sizes, vocab_size=subject.vocab_size),
            "srp": SRP(**subject.shape, segment_length=self.segment_length),
        }

    def curves(self, scores: dict[str, Any]) -> dict[str, float]:
        srp, curves = scores["srp"].expert.srp, {}
        for kind, score in scores["vocabulary"].items():
            curves[f"routing/vocabulary_specialization/{kind}"] = score.mean.item()
            curves[f"routing/srp_correlation@{self.segment_length}/{kind}"] = pearson(score.value, srp).item()
        return curves

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        if "vocabulary" not in self.metrics:
            return  # never validated
        scores = self.metrics["vocabulary"].compute()
        if trainer.is_global_zero:
            table = strongest_tokens(scores, self.subject.token_text, self.subject.layer_ids)
            log_table(trainer, "routing/strongest_tokens", table)
