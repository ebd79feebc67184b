import pytest
import torch
from hydra import compose, initialize_config_dir
from pydantic import ValidationError

from moe_toy.balance.base import LoadBalancer
from moe_toy.model.config import ModelConfig, MoEConfig
from moe_toy.model.transformer import MoETransformer
from tests.paths import CONF

# config: total, active (both embeddings included), active without embeddings; Liang et al. 2025, toy models
PAPER_COUNTS = {
    "baseline": (1_427_070_208, 326_065_408, 197_287_168),
    "few_experts": (1_426_742_528, 325_737_728, 196_959_488),
    "many_active": (1_427_070_208, 483_351_808, 354_573_568),
    "few_active": (1_427_070_208, 208_100_608, 79_322_368),
    "shared_experts": (1_427_059_968, 326_055_168, 197_276_928),
    "two_shared_experts": (1_427_049_728, 326_044_928, 197_266_688),
    "dense_first": (1_426_988_288, 463_609_088, 334_830_848),
    "dense_first_slim": (1_289_362_688, 325_983_488, 197_205_248),
    "dense_alternate": (1_426_742_528, 876_240_128, 747_461_888),
    "dense_alternate_slim": (876_240_128, 325_737_728, 196_959_488),
}


def composed_model(*overrides: str) -> ModelConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [*overrides, "data.vocab_size=50304"])
    return ModelConfig(**{**cfg.model, "moe": MoEConfig(**cfg.moe)})


@pytest.mark.parametrize("variant", PAPER_COUNTS)
def test_paper_variants_have_exactly_the_published_parameter_counts(variant):
    config = composed_model("model=olmoe_1b4", f"moe={variant}")
    with torch.device("meta"):
        model = MoETransformer(config, LoadBalancer(num_layers=len(config.moe_layers), num_experts=1))
    total, active, active_without_embeddings = PAPER_COUNTS[variant]
    assert sum(parameter.numel() for parameter in model.parameters()) == total
    assert config.total_parameters == total
    assert config.active_parameters == active
    assert config.active_parameters - config.embedding_parameters == active_without_embeddings


@pytest.mark.parametrize("variant", PAPER_COUNTS)
@pytest.mark.parametrize("size", ["nano", "small"])
def test_every_variant_fits_every_model_size(variant, size):
    assert composed_model(f"model={size}", f"moe={variant}").total_parameters > 0


def test_flops_of_a_token_counted_by_hand(make_config):
    """16 wide, 2 layers: attention 16 x (16 + 16 + 16), router 16 x 8, 2 experts of 3 x 16 x 8, output 16 x 50."""
    config = make_config()
    weights = 2 * (768 + 128 + 768) + 800
    norms = 2 * (2 * 16 + 2 * 8) + 16
    assert config.flops_per_token(seq_len=10) == 6 * (weights + norms) + 12 * 2 * 16 * 10


def test_flops_grow_with_active_experts_and_length_alone(make_config):
    flops = make_config().flops_per_token(10)
    assert make_config(top_k=4).flops_per_token(10) - flops == 6 * 2 * (2 * 3 * 16 * 8)
    assert make_config(num_experts=16, top_k=4).flops_per_token(10) - flops == 6 * 2 * 8 * 16  # the router's rows
    assert make_config().flops_per_token(20) > flops


def test_alternating_layers_start_dense(make_config):
    assert make_config(num_layers=4, moe_layer_period=2).moe_layers == (1, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_k": 9}, r"moe.top_k \(9\) cannot exceed moe.num_experts \(8\)"),
        ({"num_experts": 7}, r"ffn_budget \(64\).*nearest budgets that fit: 63 or 70"),
        ({"num_heads": 3}, r"model.hidden_size \(16\)"),
        ({"num_heads": 4, "num_kv_heads": 3}, r"model.num_heads \(4\) must be a multiple of model.num_kv_heads"),
        ({"num_leading_dense_layers": 2}, "no layer is MoE"),
        ({"normalize_weights": False}, "contradicts moe.router=topk_then_softmax"),
        ({"top_k": "eight"}, "top_k"),
        ({"vocab_size": 0}, "vocab_size"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_contradictions_are_refused_with_the_values_given(make_config, changes, message):
    with pytest.raises(ValidationError, match=message):
        make_config(**changes)
