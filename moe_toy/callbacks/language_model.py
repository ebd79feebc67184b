"""How well the model predicts text."""

from typing import Any

from torchmetrics import Metric

from moe_toy.callbacks.base import RoutingCallback, Subject, by_domain
from moe_toy.metrics.language_model import LanguageModelLoss
from moe_toy.routing import RoutingTrace


class LanguageModelCallback(RoutingCallback):
    """Logs `val/loss`, `val/perplexity`, `val/bits_per_byte`; the first and last also `/domain/books` and so on."""

    def build(self, subject: Subject) -> dict[str, Metric]:
        return {"loss": LanguageModelLoss(num_domains=len(subject.domains), token_bytes=subject.token_bytes)}

    def update(self, outputs: dict[str, Any], trace: RoutingTrace) -> None:
        self.metrics["loss"].update(outputs["token_losses"], trace.token_ids, trace.domain_ids)

    def curves(self, scores: dict[str, Any]) -> dict[str, float]:
        score = scores["loss"]
        return {
            "val/loss": score.loss.item(),
            "val/perplexity": score.perplexity.item(),
            "val/bits_per_byte": score.bits_per_byte.item(),
            **by_domain("val/loss", score.domain_loss, self.subject),
            **by_domain("val/bits_per_byte", score.domain_bits_per_byte, self.subject),
        }
