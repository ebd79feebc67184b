import json

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from moe_toy.errors import UserError
from moe_toy.export import from_huggingface
from moe_toy.export.to_huggingface import export
from moe_toy.runs.checkpoint import Checkpoint
from moe_toy.training.build import build_model
from tests.export.test_to_huggingface import ROUTERS, SIGMOID, VARIANTS, assert_equal_logits_and_routing
from tests.paths import CONF


@pytest.mark.parametrize("overrides", [*([f"moe={name}"] for name in VARIANTS), *ROUTERS.values()], ids="+".join)
def test_out_and_back_is_bit_exact(make_model, save, tmp_path, overrides):
    model = make_model(*overrides)
    export(save(model), tmp_path / "folder")
    from_huggingface.main(tmp_path / "folder", tmp_path / "back")
    checkpoint = Checkpoint.open(tmp_path / "back")
    state, back = model.state_dict(), checkpoint.weights
    assert state.keys() == back.keys()
    assert all(torch.equal(state[name], back[name]) for name in state)
    assert checkpoint.model_config.total_parameters == model.config.total_parameters
    assert checkpoint.model_config.moe_layers == model.config.moe_layers


def test_a_selection_bias_survives(make_model, save, tmp_path):
    model = make_model(SIGMOID, bias=True)
    export(save(model), tmp_path / "folder")
    from_huggingface.main(tmp_path / "folder", tmp_path / "back")
    back = Checkpoint.open(tmp_path / "back").weights
    assert torch.equal(back["balancer.bias"], model.balancer.bias)


def test_a_model_of_theirs_computes_the_same_here(tmp_path):
    config = AutoConfig.for_model(
        "qwen3_moe",
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=32,
        num_experts=8,
        num_experts_per_tok=3,
        moe_intermediate_size=16,
        intermediate_size=128,
        decoder_sparse_step=2,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "folder")
    from_huggingface.main(tmp_path / "folder", tmp_path / "back")
    path = tmp_path / "back" / "checkpoints" / "last.ckpt"
    overrides = from_huggingface.model_overrides(Checkpoint.open(path).model_config)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        model = build_model(compose("train", [*overrides, f"init_from={path}"])).eval()
    Checkpoint.open(path).load_into(model)
    assert_equal_logits_and_routing(model, tmp_path / "folder")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head_dim": 16}, "head_dim is 16 in its config.json; ours could only have 8"),
        ({"hidden_act": "gelu"}, "hidden_act is gelu"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"mlp_only_layers": [1]}, r"its MoE layers are \[0, 2, 3\] of 4"),
        ({"model_type": "mixtral"}, "is a mixtral; it must be one of qwen3_moe"),
        ({"hidden_size": "a"}, "cannot be loaded .*'hidden_size' expected int, got str"),
        ({"model_type": 3}, "cannot be loaded"),
        ({"num_local_experts": None}, "its config describes no model of ours"),
        ({"num_hidden_layers": -1}, "folder: "),
        ({"dtype": []}, "cannot be loaded"),
        ({"pad_token_id": 10**6}, "cannot be loaded"),
    ],
)
def test_what_ours_cannot_be_is_refused(make_model, save, tmp_path, change, message):
    export(save(make_model()), tmp_path / "folder")
    path = tmp_path / "folder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        from_huggingface.main(tmp_path / "folder", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_missing_tensor_is_not_started_at_random(make_model, save, tmp_path):
    export(save(make_model()), tmp_path / "folder")
    path = tmp_path / "folder" / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.norm.weight"]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 tensors, such as model.norm.weight"):
        from_huggingface.main(tmp_path / "folder", tmp_path / "back")


def test_damaged_weights_are_a_mistake(make_model, save, tmp_path):
    export(save(make_model()), tmp_path / "folder")
    (tmp_path / "folder" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be loaded"):
        from_huggingface.main(tmp_path / "folder", tmp_path / "back")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"folder: there is no config.json"):
        from_huggingface.main(tmp_path, tmp_path / "back")
