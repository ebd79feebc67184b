"""Our side of benchmarks/train_step.py: the same model as the peer's, but for QK norm per head."""

from torch import Tensor, nn

from moe_toy.balance.base import LoadBalancer
from moe_toy.model.config import ModelConfig
from moe_toy.model.transformer import MoETransformer


def build(config: ModelConfig) -> MoETransformer:
    balancer = LoadBalancer(num_layers=config.num_layers, num_experts=config.moe.num_experts)
    return MoETransformer(config, balancer).train()


def loss(model: nn.Module, token_ids: Tensor) -> Tensor:
    output = model(token_ids, only_loss=True)
    return output.loss + output.aux_loss
