"""What experts specialise in: domains of text, or tokens of the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer
from pydantic import PositiveInt
from torch import Tensor
from torchmetrics import Metric

from moe_toy.callbacks.base import RoutingCallback, Subject, by_layer, log_table
from moe_toy.metrics.correlation import pearson
from moe_toy.metrics.specialization import DomainSpecialization
from moe_toy.metrics.srp import SRP
from moe_toy.metrics.vocabulary import VocabularySpecialization, strongest_tokens
from moe_toy.runs.curve_keys import CORRELATION, SPECIALIZATION

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAYERS_PER_FIGURE = 8


class DomainSpecializationCallback(RoutingCallback):
    """Logs `specialization/domain`, the mean over experts, also by layer, how many experts have none
    (`specialization/undefined_experts`), which share of the experts prefers each domain
    (`specialization/experts_of/books`) and its correlation with SRP over all experts (`correlation/srp@{m}/domain`).
    Draws a histogram over experts, and how active each is in each domain, eight layers a picture."""

    def __init__(self, *, segment_length: PositiveInt) -> None:
        super().__init__()
        self.segment_length = segment_length

    def build(self, subject: Subject) -> dict[str, Metric]:
        return {
            "domain": DomainSpecialization(**subject.shape, segment_length=self.segment_length),
            "srp": SRP(**subject.shape, segment_length=self.segment_length),
        }

    def curves(self, scores: dict[str, Any]) -> dict[str, float]:
        key, score = f"{SPECIALIZATION}/domain", scores["domain"]
        correlation = pearson(score.value, scores["srp"].expert.srp)
        shares = zip(self.subject.domains, score.experts_of.tolist(), strict=True)
        return {
            key: score.mean.item(),
            **by_layer(key, score.value.nanmean(-1), self.subject),
            f"{SPECIALIZATION}/undefined_experts": score.undefined_experts.item(),
            **{f"{SPECIALIZATION}/experts_of/{domain}": share for domain, share in shares},
            f"{CORRELATION}/srp@{self.segment_length}/domain": correlation.item(),
        }

    def histograms(self, scores: dict[str, Any]) -> dict[str, Tensor]:
        return {f"{SPECIALIZATION}/experts/domain": scores["domain"].value}

    def figures(self, scores: dict[str, Any]) -> dict[str, Figure]:
        from moe_toy.pictures.heatmaps import expert_by_domain

        rates, layers = scores["domain"].activation_rate, self.subject.layer_ids
        figures = {}
        for first in range(0, len(layers), LAYERS_PER_FIGURE):
            rows = slice(first, first + LAYERS_PER_FIGURE)
            key = f"{SPECIALIZATION}/experts_by_domain/layers_{layers[rows][0]:02d}-{layers[rows][-1]:02d}"
            figures[key] = expert_by_domain(rates[:, rows], self.subject.domains, layers[rows])
        return figures


class VocabularySpecializationCallback(RoutingCallback):
    """Logs `specialization/{input,predicted,target}`, the mean over experts, also by layer (of models of many layers
    only that of targets), and its correlation with SRP over all experts (`correlation/srp@{m}/input` ...). When
    training ends, the strongest tokens of every expert become the table `specialization/strongest_tokens`, also kept
    as `strongest_tokens.csv`."""

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
            key = f"{SPECIALIZATION}/{kind}"
            curves[key] = score.mean.item()
            if kind == "target" or not self.subject.is_deep:
                curves |= by_layer(key, score.value.nanmean(-1), self.subject)
            curves[f"{CORRELATION}/srp@{self.segment_length}/{kind}"] = pearson(score.value, srp).item()
        return curves

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        if "vocabulary" not in self.metrics:
            return  # never validated
        scores = self.metrics["vocabulary"].compute()
        if trainer.is_global_zero:
            table = strongest_tokens(scores, self.subject.token_text, self.subject.layer_ids)
            log_table(trainer, f"{SPECIALIZATION}/strongest_tokens", table)
