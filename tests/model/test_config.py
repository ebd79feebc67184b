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
