import pytest
from hydra import compose, initialize_config_dir
from pydantic import ValidationError

from moe_toy.model.config import ModelConfig, MoEConfig
from tests.paths import CONF

VARIANTS = sorted(path.stem for path in (CONF / "moe").glob("*.yaml"))


def composed_model(*overrides: str) -> ModelConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [*overrides, "data.vocab_size=50304"])
    return ModelConfig(**{**cfg.model, "moe": MoEConfig(**cfg.moe)})


@pytest.mark.parametrize("variant", VARIANTS)
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
        ({"backend": "sonic"}, "moe.backend=sonic: .*torch <= 2.9.1.*use moe.backend=auto"),
        ({"top_k": "eight"}, "top_k"),
        ({"vocab_size": 0}, "vocab_size"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_contradictions_are_refused_with_the_values_given(make_config, changes, message):
    with pytest.raises(ValidationError, match=message):
        make_config(**changes)
