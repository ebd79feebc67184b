"""Loss, perplexity and bits per byte of next-token prediction, per domain."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from moe_toy.metrics.base import CountingMetric


@dataclass(frozen=True)
class LanguageModelScores:
    """NaN for a domain without targets. Model values are plain means over the domains that have some; NaN where one of
    these has a loss of NaN."""

    loss: Float[Tensor, ""]
    """Mean cross-entropy in nats per token, the paper's "log PPL"."""
    perplexity: Float[Tensor, ""]
    """exp(loss)."""
    bits_per_byte: Float[Tensor, ""]
    """Bits needed per byte of text: comparable across tokenizers."""
    domain_loss: Float[Tensor, " domain"]
    domain_bits_per_byte: Float[Tensor, " domain"]


class LanguageModelLoss(CountingMetric):
    """Sums of nats, tokens and bytes per domain. `token_bytes[v]` is the length in bytes of token v, 0 for EOS."""

    def __init__(self, *, num_domains: int, token_bytes: Int[Tensor, " vocab"]) -> None:
        super().__init__()
        self.register_buffer("token_bytes", token_bytes.long(), persistent=False)
        self.add_count("nats", num_domains, dtype=torch.float64)
        self.add_count("tokens", num_domains)
        self.add_count("bytes", num_domains)

    def update(
        self,
        token_losses: Float[Tensor, "batch target"],
        token_ids: Int[Tensor, "batch seq"],
        domain_ids: Int[Tensor, " batch"],
    ) -> None:
        """`token_losses` are nats of the tokens 1, 2, ... of each sequence; EOS costs nats but holds no bytes."""
        targets = token_ids[:, 1:]
        self.nats.index_add_(0, domain_ids, token_losses.double().sum(-1))
        self.tokens.index_add_(0, domain_ids, torch.full_like(domain_ids, targets.shape[1]))
        self.bytes.index_add_(0, domain_ids, self.token_bytes[targets].sum(-1))

    def compute(self) -> LanguageModelScores:
        domain_loss = self.nats / self.tokens
        domain_bits_per_byte = self.nats / math.log(2) / self.bytes
        counted = self.tokens > 0
        loss = domain_loss.where(counted, 0.0).sum() / counted.sum()
        return LanguageModelScores(
            loss=loss,
            perplexity=loss.exp(),
            bits_per_byte=domain_bits_per_byte.where(counted, 0.0).sum() / counted.sum(),
            domain_loss=domain_loss,
            domain_bits_per_byte=domain_bits_per_byte,
        )
