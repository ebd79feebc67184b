"""Models of ours, small and with every parameter away from its initial value."""

from dataclasses import asdict

import pytest
import torch
from hydra import compose, initialize_config_dir

from moe_toy.balance.base import LoadBalancer
from moe_toy.balance.loss_free import LossFreeBias
from moe_toy.model.config import ModelConfig, MoEConfig
from moe_toy.model.transformer import MoETransformer
from tests.paths import CONF

TINY = ["model.hidden_size=32", "model.ffn_budget=256", "model.max_seq_len=64", "model.init_std=0.2"]


@pytest.fixture
def make_model():
    """`make_model("moe=few_active")`: a nano model but narrower, with random norms; `bias` for a selection bias."""

    def make(*overrides: str, bias: bool = False) -> MoETransformer:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", [*TINY, "data.vocab_size=300", *overrides])
        config = ModelConfig(**{**cfg.model, "moe": MoEConfig(**cfg.moe)})
        counts = {"num_layers": len(config.moe_layers), "num_experts": config.moe.num_experts}
        balancer = LossFreeBias(rate=0.1, **counts) if bias else LoadBalancer(**counts)
        torch.manual_seed(0)
        model = MoETransformer(config, balancer).eval()
        for norm in [parameter.detach() for parameter in model.parameters() if parameter.ndim == 1]:
            norm.normal_(mean=1.0, std=0.2)
        if bias:
            balancer.bias.normal_(std=0.2)
        return model

    return make


@pytest.fixture
def save(tmp_path):
    """Save a model as a run directory; returns its checkpoint."""

    def write(model: MoETransformer):
        path = tmp_path / "run" / "checkpoints" / "last.ckpt"
        path.parent.mkdir(parents=True)
        state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        torch.save({"state_dict": state, "hyper_parameters": {"model": asdict(model.config)}}, path)
        return path

    return write
