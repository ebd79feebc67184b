"""The router: from a token's hidden state to its experts and their mixing weights."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from moe_toy.locality.base import Steer
from moe_toy.model.config import ModelConfig
from moe_toy.routing import Routing


class TopKRouter(nn.Module):
    """A linear map without bias, always computed in fp32, whose `top_k` largest scores win."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.kind = config.moe.router
        self.top_k = config.moe.top_k
        self.normalize_weights = config.moe.normalize_weights
        self.weight = nn.Parameter(torch.empty(config.moe.num_experts, config.hidden_size))

    def forward(
        self,
        x: Float[Tensor, "batch seq hidden"],
        selection_bias: Float[Tensor, " expert"] | None = None,
        steer: Steer | None = None,
    ) -> Routing:
        """Choose `top_k` experts per token. `selection_bias` moves the choice, never the weights nor the order, which
        is that of the logits, and so does `steer`, but experts that it leaves out have no part in the weights either.

        `topk_then_softmax` is the softmax over the chosen logits, which is the same as normalising the chosen
        ones of the softmax over all. `Routing.scores` sum to 1 over experts whatever the kind of router, so that
        one balance loss fits all.
        """
        with torch.autocast(x.device.type, enabled=False):  # small differences decide
            dtype = torch.promote_types(x.dtype, torch.float32)
            logits = F.linear(x.to(dtype), self.weight.to(dtype))
            affinity = logits.sigmoid() if self.kind == "sigmoid" else logits.softmax(-1)
            # Softmax and sigmoid keep the order of logits, which have no rounding ties at the extremes.
            ranking = logits if selection_bias is None else affinity + selection_bias
            scores = affinity / affinity.sum(-1, keepdim=True) if self.kind == "sigmoid" else affinity
            if steer is not None:
                ranking = steer(ranking.detach(), scores.detach(), self.top_k)
                masked = logits.masked_fill(ranking.isneginf(), -torch.inf)
                affinity = masked.sigmoid() if self.kind == "sigmoid" else masked.softmax(-1)
            expert_ids = best_first(ranking.detach(), self.top_k)
            if ranking is not logits:
                expert_ids = in_order(expert_ids, logits.detach())
            weights = affinity.gather(-1, expert_ids)
            if self.normalize_weights:
                weights = weights / weights.sum(-1, keepdim=True)
        return Routing(logits, scores, expert_ids, weights.type_as(x))


def best_first(ranking: Float[Tensor, "*token expert"], top_k: int) -> Int[Tensor, "*token k"]:
    """The `top_k` largest, in falling order; of equals the lower expert index ranks higher."""
    # Elsewhere to look for equals would wait for the device, and it would cut a compiled graph in two.
    if ranking.device.type == "cpu" and top_k < ranking.shape[-1] and not torch.compiler.is_compiling():
        largest = ranking.topk(top_k + 1)
        if not (largest.values[..., 1:] == largest.values[..., :-1]).any():  # of equals topk takes any
            return largest.indices[..., :top_k]
    return ranking.sort(dim=-1, descending=True, stable=True).indices[..., :top_k]


def in_order(expert_ids: Int[Tensor, "*token k"], logits: Float[Tensor, "*token expert"]) -> Int[Tensor, "*token k"]:
    """The same experts in falling order of their logits, the lower index first of equals, whatever moved the choice."""
    expert_ids = expert_ids.sort(dim=-1).values
    return expert_ids.gather(-1, logits.gather(-1, expert_ids).sort(dim=-1, descending=True, stable=True).indices)


def z_loss(logits: Float[Tensor, "batch seq expert"]) -> Float[Tensor, ""]:
    """Mean squared log-sum-exp: keeps router logits small (Zoph et al. 2022, arXiv 2202.08906)."""
    return logits.logsumexp(-1).square().mean()
