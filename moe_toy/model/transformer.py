"""The language model: embeddings, blocks, and an output that carries the routing trace."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from moe_toy.balance.base import LoadBalancer, PreciseBuffers
from moe_toy.locality.base import LocalityScheme, Steer
from moe_toy.model.attention import Attention, rotary_table
from moe_toy.model.config import ModelConfig
from moe_toy.model.cross_entropy import Compiler, mean_cross_entropy, most_likely
from moe_toy.model.initial_values import init_matrices
from moe_toy.model.key_value_cache import KeyValueCache
from moe_toy.model.layers import RMSNorm, SwiGLU
from moe_toy.model.moe import MoELayer
from moe_toy.model.router import z_loss
from moe_toy.routing import Routing, RoutingTrace


@dataclass(frozen=True)
class ModelOutput:
    logits: Float[Tensor, "batch seq vocab"] | None
    """Scores of the next token at each position; the largest tensor, so None where only the loss is asked for."""
    loss: Float[Tensor, ""] | None
    """Mean cross-entropy of the next tokens in nats, where it is asked for."""
    aux_loss: Float[Tensor, ""]
    """What the objective adds to the cross-entropy: weighted balance, locality and z-losses, summed over layers."""
    aux_terms: dict[str, Tensor]
    """The same losses before weighting, mean over layers, detached, for logging."""
    trace: RoutingTrace | None
    """Where the tokens went, if that is asked for."""


class Block(nn.Module):
    """Pre-norm attention, then a pre-norm FFN: experts in MoE layers, one SwiGLU in dense ones."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.attention = Attention(config)
        self.ffn_norm = RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.is_moe = layer in config.moe_layers
        self.ffn = MoELayer(config) if self.is_moe else SwiGLU(config.hidden_size, config.dense_hidden_size)

    def forward(
        self,
        x: Float[Tensor, "batch seq hidden"],
        rotation: Float[Tensor, "2 seq half"],
        selection_bias: Float[Tensor, " expert"] | None = None,
        steer: Steer | None = None,
        cache: KeyValueCache | None = None,
    ) -> tuple[Float[Tensor, "batch seq hidden"], Routing | None]:
        x = x + self.attention(self.attention_norm(x), rotation, cache)
        if self.is_moe:
            y, routing = self.ffn(self.ffn_norm(x), selection_bias, steer)
            return x + y, routing
        return x + self.ffn(self.ffn_norm(x)), None


class MoETransformer(PreciseBuffers):
    """OLMoE-style decoder: RMSNorm, QK norm per head, RoPE, SwiGLU experts, untied embeddings."""

    def __init__(self, config: ModelConfig, balancer: LoadBalancer, locality: LocalityScheme | None = None) -> None:
        super().__init__()
        seed = int(torch.randint(2**62, (), device="cpu"))  # before any submodule draws: how much depends on its shape
        self.config = config
        self.recomputes_blocks = config.activation_checkpointing is not False
        """In the backward pass; `auto` may find that there is no need to."""
        self.loss_compiler: Compiler | None = None
        """What makes one pass of each chunk of the loss."""
        self.balancer = balancer
        self.locality = locality or LocalityScheme()
        self.locality.check(num_experts=config.moe.num_experts, top_k=config.moe.top_k)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.unembedding = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        rotation = rotary_table(config.max_seq_len, config.head_size, config.rope_base)
        self.register_buffer("rotation", rotation, persistent=False)
        init_matrices(self, config.init_std, seed)

    def forward(
        self,
        token_ids: Int[Tensor, "batch seq"],
        *,
        only_loss: bool = False,
        with_trace: bool = True,
        with_predictions: bool = False,
    ) -> ModelOutput:
        """Predict the next token at each position of sequences of at most `max_seq_len` tokens.

        `only_loss` gives the mean loss of these predictions in place of the predictions, in less memory and time.
        `with_trace` says where the tokens went; `with_predictions` notes in this trace the most likely next tokens.
        """
        x, routings = self._run_blocks(token_ids)
        x = self.norm(x)
        loss = self._loss(x, token_ids) if only_loss else None
        logits = None if only_loss else self.unembedding(x)

        balance = self.balancer.loss(routings)
        locality = self.locality.loss(routings, balance.batch_counts)
        z = torch.stack([z_loss(routing.logits) for routing in routings])
        aux_loss = balance.objective + self.config.moe.z_loss_coefficient * z.sum()
        return ModelOutput(
            logits=logits,
            loss=loss,
            aux_loss=aux_loss if locality is None else aux_loss + locality.objective,
            aux_terms={**balance.terms, **(locality.terms if locality else {}), "z_loss": z.mean().detach()},
            trace=self._trace(token_ids, logits if with_predictions else None, routings) if with_trace else None,
        )

    def _loss(self, x: Float[Tensor, "batch seq hidden"], token_ids: Int[Tensor, "batch seq"]) -> Float[Tensor, ""]:
        hidden, targets = x[:, :-1].flatten(0, 1), token_ids[:, 1:].flatten()
        return mean_cross_entropy(hidden, self.unembedding.weight, targets, self.loss_compiler)

    @torch.no_grad()
    def route(self, token_ids: Int[Tensor, "batch seq"]) -> Int[Tensor, "layer batch seq k"]:
        """Where the tokens go, without counting them and without the cost of logits."""
        return torch.stack([routing.expert_ids for routing in self._run_blocks(token_ids)[1]])

    def new_caches(self, batch: int, max_len: int) -> list[KeyValueCache]:
        """Empty, one per block, for sequences of at most `max_len` tokens."""
        return [KeyValueCache(self.config, batch, max_len, self.unembedding.weight) for _ in self.blocks]

    @torch.no_grad()
    def extend(
        self, token_ids: Int[Tensor, "batch seq"], caches: list[KeyValueCache]
    ) -> tuple[Float[Tensor, "batch vocab"], Int[Tensor, "layer batch seq k"]]:
        """Read the tokens that follow those in the caches: logits of the token after the last, and where they went.

        The first call reads a prompt, the others decode. Raises `ValueError` in training mode, where blocks may be
        computed twice and limits to choices are others.
        """
        if self.training:
            raise ValueError("a model in training mode cannot extend a sequence; call eval() before")
        x, routings = self._run_blocks(token_ids, caches)
        return self.unembedding(self.norm(x[:, -1])), torch.stack([routing.expert_ids for routing in routings])

    def _run_blocks(
        self, token_ids: Int[Tensor, "batch seq"], caches: list[KeyValueCache] | None = None
    ) -> tuple[Float[Tensor, "batch seq hidden"], list[Routing]]:
        past = caches[0].length if caches else 0
        length, longest = past + token_ids.shape[1], self.config.max_seq_len
        if length > longest:
            raise ValueError(f"a sequence of {length} tokens exceeds model.max_seq_len ({longest}); shorten it")
        x = self.embedding(token_ids)
        rotation = self.rotation[:, past:length]
        biases = iter(self.balancer.selection_bias) if self.balancer.selection_bias is not None else None
        steer = self.locality.steer(token_ids)
        routings: list[Routing] = []
        for layer, block in enumerate(self.blocks):
            bias = next(biases) if biases is not None and block.is_moe else None
            if self.recomputes_blocks and self.training:
                x, routing = checkpoint(block, x, rotation, bias, steer, use_reentrant=False)
            else:
                cache = caches[layer] if caches else None
                x, routing = block(x, rotation, bias, cache.remember(steer) if cache and steer else steer, cache)
            if routing is not None:
                routings.append(routing)
        return x, routings

    @torch.no_grad()
    def _trace(self, token_ids: Tensor, logits: Tensor | None, routings: list[Routing]) -> RoutingTrace:
        return RoutingTrace(
            expert_ids=torch.stack([routing.expert_ids for routing in routings]),
            token_ids=token_ids,
            predicted_ids=None if logits is None else most_likely(logits),
            num_experts=self.config.moe.num_experts,
            layer_ids=self.config.moe_layers,
            vocab_size=self.config.vocab_size,
        )
