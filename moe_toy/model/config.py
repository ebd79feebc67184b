"""Numbers that define a model, checked once, with the parameter counts that follow from them."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, PositiveFloat, PositiveInt, model_validator
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(strict=True, extra="forbid")
NonNegativeInt = Annotated[int, Field(ge=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
NO_SONIC = (
    "sonic-moe 0.1.2 cannot be installed beside us (it needs torch <= 2.9.1, we need >= 2.10) and keeps expert "
    "matrices in another order than our checkpoints (docs/speed.md)"
)
"""Why the experts of the package sonic-moe are not a backend."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MoEConfig:
    """The MoE side of a model: counts, placement and routing. Widths follow from `ModelConfig.ffn_budget`."""

    num_experts: PositiveInt
    """Routed experts per layer; shared experts are not among them."""
    top_k: PositiveInt
    """Routed experts that each token activates."""
    num_shared_experts: NonNegativeInt
    """Experts that every token activates, without a gate, as one MLP of their joint width."""
    num_leading_dense_layers: NonNegativeInt
    """How many of the first layers have a dense FFN instead of experts."""
    moe_layer_period: PositiveInt
    """Every n-th layer is MoE, the others dense: with 2, layers 2, 4, 6, ... (counted from 1)."""
    dense_ffn: Literal["full", "slim"]
    """Width of dense FFNs: `full` keeps the total parameters, `slim` the active ones of an MoE layer."""
    router: Literal["topk_then_softmax", "softmax_then_topk", "sigmoid"]
    """`topk_then_softmax` (the paper's toys), `softmax_then_topk` (OLMoE) or `sigmoid` (DeepSeek-V3)."""
    normalize_weights: bool
    """Whether the mixing weights of the chosen experts are scaled to sum to 1."""
    z_loss_coefficient: NonNegativeFloat
    """Weight of the mean squared log-sum-exp of the router logits, summed over layers."""
    backend: Literal["auto", "grouped", "loop", "sonic"]
    """How expert matrices are multiplied; `auto` is `grouped` where device, dtype and widths have it;
    `sonic` is refused."""

    @model_validator(mode="after")
    def _check(self) -> "MoEConfig":
        if self.top_k > self.num_experts:
            raise ValueError(
                f"moe.top_k ({self.top_k}) cannot exceed moe.num_experts ({self.num_experts}); "
                "lower moe.top_k or pick another moe config"
            )
        if self.backend == "sonic":
            raise ValueError(f"moe.backend=sonic: {NO_SONIC}; use moe.backend=auto")
        if self.router == "topk_then_softmax" and not self.normalize_weights:
            raise ValueError(
                "moe.normalize_weights=false contradicts moe.router=topk_then_softmax, whose weights always "
                "sum to 1; set moe.normalize_weights=true or moe.router=softmax_then_topk"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelConfig:
    """A decoder-only transformer in which some layers are MoE layers."""

    vocab_size: PositiveInt
    hidden_size: PositiveInt
    num_layers: PositiveInt
    num_heads: PositiveInt
    num_kv_heads: PositiveInt
    max_seq_len: PositiveInt
    ffn_budget: PositiveInt
    """FFN width of a layer, divided evenly among its routed and shared experts (paper: 40960)."""
    rope_base: PositiveFloat
    norm_eps: PositiveFloat
    init_std: PositiveFloat
    """Standard deviation of the normal initialisation of every matrix."""
    activation_checkpointing: Literal["auto"] | bool
    """Recompute each block in the backward pass instead of keeping its activations; `auto` keeps them where they fit
    into the memory of a GPU."""
    compile: Literal["auto"] | bool
    """Compile each block for training steps; `auto` does on CUDA in bf16."""
    moe: MoEConfig

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        if self.hidden_size % self.num_heads or self.head_size % 2:
            raise ValueError(
                f"model.hidden_size ({self.hidden_size}) must be an even multiple of model.num_heads "
                f"({self.num_heads}); choose hidden_size = num_heads x an even head size"
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"model.num_heads ({self.num_heads}) must be a multiple of model.num_kv_heads "
                f"({self.num_kv_heads}); each key/value head serves the same number of query heads"
            )
        if not self.moe_layers:
            raise ValueError(
                f"no layer is MoE: moe.num_leading_dense_layers ({self.moe.num_leading_dense_layers}) and "
                f"moe.moe_layer_period ({self.moe.moe_layer_period}) make all {self.num_layers} layers dense; "
                "lower them or raise model.num_layers"
            )
        self._check_budget()
        return self

    def _check_budget(self) -> None:
        parts = self.moe.num_experts + self.moe.num_shared_experts
        if self.ffn_budget % parts:
            below = self.ffn_budget // parts * parts
            nearest = [str(budget) for budget in (below, below + parts) if budget]
            divisors = [n for n in range(1, self.ffn_budget + 1) if self.ffn_budget % n == 0]
            closest = sorted(divisors, key=lambda n: abs(n - parts))[:2]
            raise ValueError(
                f"model.ffn_budget ({self.ffn_budget}) cannot be divided among moe.num_experts + "
                f"moe.num_shared_experts ({parts}) experts; nearest budgets that fit: {' or '.join(nearest)}; "
                f"nearest numbers of experts: {' or '.join(str(n) for n in sorted(closest))}"
            )

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def expert_hidden_size(self) -> int:
        """FFN width of one expert."""
        return self.ffn_budget // (self.moe.num_experts + self.moe.num_shared_experts)

    @property
    def dense_hidden_size(self) -> int:
        """FFN width of a dense layer."""
        if self.moe.dense_ffn == "full":
            return self.ffn_budget
        return self.expert_hidden_size * (self.moe.top_k + self.moe.num_shared_experts)

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Indices of the MoE layers, from 0."""
        period, dense = self.moe.moe_layer_period, self.moe.num_leading_dense_layers
        return tuple(i for i in range(self.num_layers) if i >= dense and (i + 1) % period == 0)

    @property
    def total_parameters(self) -> int:
        return self._parameters(self.moe.num_experts)

    @property
    def active_parameters(self) -> int:
        """Parameters that one token uses, both embeddings counted whole as the paper does."""
        return self._parameters(self.moe.top_k)

    @property
    def embedding_parameters(self) -> int:
        """Input and output embeddings; they are untied."""
        return 2 * self.vocab_size * self.hidden_size

    def flops_per_token(self, seq_len: int) -> int:
        """Floating-point operations to train on one token of a sequence of `seq_len`, forward and backward.

        6 per active weight that multiplies (Kaplan et al. 2020, arXiv 2001.08361), and for attention 12 per layer,
        dimension and position (PaLM, arXiv 2204.02311, appendix B), without the half that the causal mask saves.
        """
        looked_up = self.vocab_size * self.hidden_size  # the input embedding multiplies nothing
        return 6 * (self.active_parameters - looked_up) + 12 * self.num_layers * self.hidden_size * seq_len

    def _parameters(self, routed_experts: int) -> int:
        hidden, kv_size = self.hidden_size, self.num_kv_heads * self.head_size
        attention = 2 * hidden * hidden + 2 * hidden * kv_size + 2 * self.head_size
        norms = 2 * hidden
        expert = 3 * hidden * self.expert_hidden_size
        router = hidden * self.moe.num_experts
        moe_ffn = router + expert * (routed_experts + self.moe.num_shared_experts)
        dense_ffn = 3 * hidden * self.dense_hidden_size
        num_moe = len(self.moe_layers)
        return (
            self.embedding_parameters
            + self.num_layers * (attention + norms)
            + num_moe * moe_ffn
            + (self.num_layers - num_moe) * dense_ffn
            + hidden
        )
