"""The MoE layer: router, routed experts, and an optional shared expert that serves every token."""

from jaxtyping import Float
from torch import Tensor, nn

from moe_toy.locality.base import Steer
from moe_toy.model.config import ModelConfig
from moe_toy.model.experts import Experts
from moe_toy.model.layers import SwiGLU
from moe_toy.model.router import TopKRouter
from moe_toy.routing import Routing


class MoELayer(nn.Module):
    """Returns its routing decision beside its output, so nothing has to be read from the module later."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.router = TopKRouter(config)
        self.experts = Experts(config)
        shared_width = config.moe.num_shared_experts * config.expert_hidden_size
        self.shared_expert = SwiGLU(config.hidden_size, shared_width) if shared_width else None

    def forward(
        self,
        x: Float[Tensor, "batch seq hidden"],
        selection_bias: Float[Tensor, " expert"] | None = None,
        steer: Steer | None = None,
    ) -> tuple[Float[Tensor, "batch seq hidden"], Routing]:
        routing = self.router(x, selection_bias, steer)
        y = self.experts(x, routing.expert_ids, routing.weights)
        if self.shared_expert is not None:
            y = y + self.shared_expert(x)
        return y, routing
