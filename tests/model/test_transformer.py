import pytest
import torch
import torch.nn.functional as F

from moe_toy.balance.base import LoadBalancer
from moe_toy.model.initial_values import without_memory
from moe_toy.model.transformer import MoETransformer


def make_model(config) -> MoETransformer:
    torch.manual_seed(0)
    return MoETransformer(config, LoadBalancer(num_layers=len(config.moe_layers), num_experts=config.moe.num_experts))


def test_trace_has_one_row_per_moe_layer_and_no_gradients(make_config):
    config = make_config(num_layers=4, moe_layer_period=2)
    trace = make_model(config)(torch.randint(50, (3, 7))).trace
    assert trace.expert_ids.shape == (2, 3, 7, 2)
    assert trace.layer_ids == (1, 3)
    assert trace.weights is None  # which nobody reads


def test_only_what_is_asked_for_is_traced(make_config):
    model, tokens = make_model(make_config()), torch.randint(50, (2, 5))
    assert model(tokens, with_trace=False).trace is None
    assert model(tokens).trace.predicted_ids is None
    output = model(tokens, with_predictions=True)
    assert torch.equal(output.trace.predicted_ids, output.logits.argmax(-1))


CASTS = {
    "to": lambda model: model.to(torch.bfloat16),
    "half": lambda model: model.half(),
    "bfloat16": lambda model: model.bfloat16(),
    "there and back": lambda model: model.double().bfloat16().float(),
}


@pytest.mark.parametrize("cast", CASTS.values(), ids=CASTS)
def test_the_rotary_table_is_not_cast(make_config, cast):
    model, exact = make_model(make_config()), make_model(make_config()).rotation
    assert cast(model) is model
    assert model.rotation.dtype == torch.float32
    assert torch.equal(model.rotation, exact)
    assert model.double().rotation.dtype == torch.float64  # that loses nothing
    assert model.to("meta").rotation.is_meta


def test_without_memory_a_model_has_shapes_and_no_values(make_config, monkeypatch):
    model = make_model(make_config())
    for draw in ("normal_", "uniform_"):
        monkeypatch.setattr(torch.Tensor, draw, None)
    with without_memory():
        empty = make_model(make_config())
    assert all(parameter.is_meta for parameter in empty.parameters())
    assert {k: v.shape for k, v in empty.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    assert empty.rotation.is_meta  # all of a model is where it is built
    assert empty.rotation.shape == model.rotation.shape


def test_permuting_expert_ids_changes_nothing(make_config):
    model = make_model(make_config(num_shared_experts=0)).double()
    tokens, permutation = torch.randint(50, (2, 9)), torch.randperm(8)
    before = model(tokens)
    with torch.no_grad():
        for block in model.blocks:
            block.ffn.router.weight.copy_(block.ffn.router.weight[permutation])
            block.ffn.experts.gate_up.copy_(block.ffn.experts.gate_up[permutation])
            block.ffn.experts.down.copy_(block.ffn.experts.down[permutation])
    after = model(tokens)
    torch.testing.assert_close(before.logits, after.logits)
    assert torch.equal(before.trace.expert_ids, permutation[after.trace.expert_ids])


@pytest.mark.parametrize("changes", [{}, {"num_shared_experts": 8}, {"moe_layer_period": 2}], ids=str)
def test_activation_checkpointing_changes_neither_loss_nor_gradients(make_config, changes):
    tokens = torch.randint(50, (2, 9))
    gradients = []
    for checkpointing in (False, True):
        model = make_model(make_config(**changes, activation_checkpointing=checkpointing)).double()
        model(tokens).logits.square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_shared_expert_serves_every_token(make_config):
    model = make_model(make_config(num_shared_experts=8))
    x = torch.randn(1, 4, 16)
    layer = model.blocks[0].ffn
    y, routing = layer(x)
    torch.testing.assert_close(y, layer.experts(x, routing.expert_ids, routing.weights) + layer.shared_expert(x))


def test_z_loss_enters_the_objective_summed_over_layers(make_config):
    output = make_model(make_config(num_layers=3, z_loss_coefficient=0.5))(torch.randint(50, (2, 5)))
    torch.testing.assert_close(output.aux_loss.detach(), 0.5 * 3 * output.aux_terms["z_loss"])


def test_the_loss_alone_equals_the_loss_of_the_logits_in_value_and_gradient(make_config):
    model, tokens = make_model(make_config(z_loss_coefficient=0.1)).double(), torch.randint(50, (3, 9))
    output = model(tokens)
    expected = F.cross_entropy(output.logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    only = model(tokens, only_loss=True)
    assert only.logits is None
    torch.testing.assert_close(only.loss, expected)
    gradients = [torch.autograd.grad(o, model.parameters()) for o in (expected, only.loss)]
    for of_logits, of_loss in zip(*gradients, strict=True):
        torch.testing.assert_close(of_loss, of_logits)
    assert torch.equal(only.trace.expert_ids, output.trace.expert_ids)


@pytest.mark.parametrize(
    "changes",
    [{"num_experts": 4}, {"top_k": 4}, {"num_shared_experts": 8}, {"num_leading_dense_layers": 1}],
    ids=str,
)
def test_variants_of_one_seed_share_the_initial_weights_of_their_common_parts(make_config, changes):
    plain, variant = (dict(make_model(config).named_parameters()) for config in (make_config(), make_config(**changes)))
    common = {name for name in plain if name in variant and plain[name].shape == variant[name].shape}
    assert {"embedding.weight", "unembedding.weight", "blocks.0.attention.qkv.weight"} <= common
    for name in common:
        assert torch.equal(plain[name], variant[name]), name


def test_other_seeds_and_other_parts_draw_other_weights(make_config):
    model = make_model(make_config())
    torch.manual_seed(1)
    other = MoETransformer(model.config, model.balancer)
    assert not torch.equal(model.embedding.weight, other.embedding.weight)
    assert not torch.equal(model.embedding.weight, model.unembedding.weight)
    assert not torch.equal(model.blocks[0].attention.qkv.weight, model.blocks[1].attention.qkv.weight)
    assert model.embedding.weight.std().item() == pytest.approx(model.config.init_std, rel=0.1)
