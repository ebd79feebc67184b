"""Blocks that run compiled train as they do without; what is compiled, and how often."""

import logging

import pytest
import torch

from moe_toy.model import cross_entropy
from moe_toy.model.compiled_blocks import compile_blocks, wants_compiled_blocks
from tests.model.test_transformer import make_model


@pytest.fixture
def compiled():
    """A backend of torch.compile that runs graphs as they are and notes them; what it compiled before is forgotten."""
    torch._dynamo.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    backend.graphs = graphs
    return backend


@pytest.fixture
def wide(make_config):
    """`wide(moe_layer_period=2)`: a config whose experts have a grouped product."""
    return lambda **changes: make_config(backend="auto", num_layers=4, **changes)


def step(model, tokens):
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(tokens, only_loss=True)
    (output.loss + output.aux_loss).backward()
    return output.loss.item(), [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize("changes", [{}, {"activation_checkpointing": True}, {"moe_layer_period": 2}], ids=str)
def test_a_compiled_step_has_the_same_loss_and_gradients(wide, compiled, changes, monkeypatch):
    for room in ("layers", "causal_attention"):  # backward passes by hand, which no graph takes, round otherwise
        monkeypatch.setattr(f"moe_toy.model.{room}.takes_own_gradient", lambda x: False)
    tokens = torch.randint(50, (2, 9))
    plain, other = make_model(wide(**changes)), make_model(wide(**changes))
    compile_blocks(other.blocks, compiled)
    (loss, gradients), (their_loss, theirs) = step(plain, tokens), step(other, tokens)
    assert compiled.graphs
    assert loss == their_loss
    for ours, their in zip(gradients, theirs, strict=True):
        torch.testing.assert_close(ours, their)


def test_layers_share_one_compilation_and_validations_of_any_length_need_none(wide, compiled):
    model = make_model(wide())
    compile_blocks(model.blocks, compiled)
    for seq in (9, 9, 9):
        step(model, torch.randint(50, (2, seq)))
    assert len(compiled.graphs) == 1
    called = [str(node.target) for node in compiled.graphs[0].graph.nodes]
    assert sum("grouped_mm" in name for name in called) == 2
    model.eval()
    with torch.no_grad():
        for batch, seq in ((1, 5), (3, 12), (2, 31)):
            model(torch.randint(50, (batch, seq)))
    step(model.train(), torch.randint(50, (2, 9)))
    assert len(compiled.graphs) == 1
    with torch.autocast("cpu", torch.bfloat16):
        model.route(torch.randint(50, (2, 9)))  # what looks ahead has no gradients
    assert len(compiled.graphs) == 2


def test_a_compiled_model_is_saved_and_looked_into_as_a_plain_one(wide, compiled):
    model, plain, seen = make_model(wide()), make_model(wide()), []
    compile_blocks(model.blocks, compiled)
    step(model, torch.randint(50, (2, 9)))
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in model.named_modules()] == [name for name, _ in plain.named_modules()]
    plain.load_state_dict(model.state_dict(), strict=True)
    model.blocks[0].ffn_norm.register_forward_hook(lambda *args: seen.append(1))
    model.eval()(torch.randint(50, (2, 9)))
    assert seen == [1]


def test_where_compiling_fails_one_line_says_so_and_training_goes_on(wide, caplog):
    def broken(graph, inputs):
        raise RuntimeError("no compiler here\nand much more")

    torch._dynamo.reset()
    tokens = torch.randint(50, (2, 9))
    model, plain = make_model(wide()), make_model(wide())
    compile_blocks(model.blocks, broken)
    with caplog.at_level(logging.WARNING):
        losses = [step(model, tokens)[0] for _ in range(2)]
    assert losses == [step(plain, tokens)[0]] * 2
    (line,) = [record.getMessage() for record in caplog.records if "model.compile" in record.getMessage()]
    assert "blocks run uncompiled" in line
    assert "no compiler here" in line
    assert "\n" not in line


def test_a_compiled_loss_has_the_same_value_and_gradients(compiled, monkeypatch):
    monkeypatch.setitem(cross_entropy.CHUNK_LOGITS, "cpu", 13 * 4)  # chunks of 4, 4 and 2 tokens
    hidden, weight = torch.randn(10, 8, requires_grad=True), torch.randn(13, 8, requires_grad=True)
    targets, results = torch.randint(13, (10,)), []
    for compiler in (None, compiled):
        with torch.autocast("cpu", torch.bfloat16):
            loss = cross_entropy.mean_cross_entropy(hidden, weight, targets, compiler)
        results.append([loss, *torch.autograd.grad(loss, (hidden, weight))])
    assert len(compiled.graphs) == 2
    for plain, other in zip(*results, strict=True):
        torch.testing.assert_close(plain, other)


def test_where_the_loss_cannot_be_compiled_one_line_says_so(caplog):
    def broken(graph, inputs):
        raise RuntimeError("no compiler here")

    hidden, weight = torch.randn(10, 8, requires_grad=True), torch.randn(13, 8, requires_grad=True)
    targets = torch.randint(13, (10,))
    losses = [cross_entropy.mean_cross_entropy(hidden, weight, targets, compiler) for compiler in (None, broken)]
    torch.testing.assert_close(*losses)
    (line,) = [record.getMessage() for record in caplog.records if record.name == cross_entropy.__name__]
    assert "the loss runs uncompiled" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("setting", "device", "precision", "backend", "wanted"),
    [
        ("auto", "cuda", "bf16-mixed", "auto", True),
        ("auto", "cuda", "bf16-true", "grouped", True),
        ("auto", "cuda", "bf16-mixed", "loop", False),
        ("auto", "cuda", "32-true", "auto", False),
        ("auto", "cpu", "bf16-mixed", "auto", False),
        (True, "cpu", "bf16-mixed", "auto", True),
        (False, "cuda", "bf16-mixed", "auto", False),
    ],
)
def test_auto_compiles_on_cuda_in_bf16(  # noqa: PLR0917
    make_config, monkeypatch, setting, device, precision, backend, wanted
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    model = make_model(make_config(compile=setting, backend=backend))
    assert wants_compiled_blocks(model, device, precision) is wanted
