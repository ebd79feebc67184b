"""transformers is the oracle: its own classes compute what our models compute, and choose the same experts."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from moe_toy.data import tokenizer
from moe_toy.errors import UserError
from moe_toy.export.to_huggingface import export
from moe_toy.runs.run_directory import RunDirectory
from tests.paths import CONF

VARIANTS = sorted(path.stem for path in (CONF / "moe").glob("*.yaml"))
SIGMOID = "moe.router=sigmoid"
UNNORMALISED = ("moe.router=softmax_then_topk", "moe.normalize_weights=false")
ROUTERS = {
    "softmax_then_topk": ["moe.router=softmax_then_topk"],
    "softmax_unnormalised": [*UNNORMALISED],
    "softmax_unnormalised_shared": [*UNNORMALISED, "moe=two_shared_experts"],
    "sigmoid": [SIGMOID],
    "sigmoid_unnormalised": [SIGMOID, "moe.normalize_weights=false"],
    "sigmoid_shared_dense": [SIGMOID, "moe=shared_experts", "moe.num_leading_dense_layers=1"],
    "sigmoid_alternate": [SIGMOID, "moe=dense_alternate_slim"],
}


def by_expert(expert_ids, weights):
    """Some classes do not order the chosen best first."""
    ids, order = expert_ids.sort(-1)
    return ids, weights.gather(-1, order)


@torch.no_grad()
def assert_equal_logits_and_routing(ours, folder):
    theirs, loading = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()), loading
    routings, our_routings = [], []
    for name, module in ours.named_modules():
        if name.endswith(".router"):
            module.register_forward_hook(lambda _, inputs, routing: our_routings.append(routing))
    for name, module in theirs.named_modules():
        if name.endswith(".experts"):
            module.register_forward_pre_hook(lambda _, inputs: routings.append(inputs[1:]))
    tokens = torch.randint(ours.config.vocab_size, (2, ours.config.max_seq_len))
    output, logits = ours(tokens), theirs.eval()(tokens).logits
    torch.testing.assert_close(logits, output.logits, atol=1e-4, rtol=0)
    for ours_chosen, theirs_chosen in zip(our_routings, routings, strict=True):
        ids, weights = by_expert(ours_chosen.expert_ids.flatten(0, 1), ours_chosen.weights.flatten(0, 1))
        their_ids, their_weights = by_expert(*theirs_chosen)
        assert torch.equal(their_ids, ids)
        torch.testing.assert_close(their_weights, weights)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_equal_logits_and_routing(make_model, save, tmp_path, variant):
    model = make_model(f"moe={variant}")
    export(save(model), tmp_path / "out")
    assert_equal_logits_and_routing(model, tmp_path / "out")


def test_a_run_directory_stands_for_its_last_checkpoint(make_model, save, tmp_path):
    model = make_model("moe=baseline")
    run = RunDirectory.of(save(model))
    export(run.path, tmp_path / "out")
    assert_equal_logits_and_routing(model, tmp_path / "out")


@pytest.mark.parametrize("overrides", ROUTERS.values(), ids=ROUTERS)
def test_every_router_has_equal_logits_and_routing(make_model, save, tmp_path, overrides):
    model = make_model(*overrides)
    export(save(model), tmp_path / "out")
    assert_equal_logits_and_routing(model, tmp_path / "out")


def test_a_selection_bias_moves_the_choice_there_as_here(make_model, save, tmp_path):
    model = make_model(SIGMOID, bias=True)
    export(save(model), tmp_path / "out")
    assert_equal_logits_and_routing(model, tmp_path / "out")


def test_a_selection_bias_on_softmax_scores_is_refused(make_model, save, tmp_path):
    with pytest.raises(UserError, match=r"balance=loss_free with moe.router=topk_then_softmax"):
        export(save(make_model(bias=True)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shared_experts_beside_dense_layers_are_refused(make_model, save, tmp_path):
    model = make_model("moe=shared_experts", "moe.num_leading_dense_layers=1")
    with pytest.raises(UserError, match=r"moe.num_shared_experts \(1\) beside dense layers"):
        export(save(model), tmp_path / "out")


def test_the_tokenizer_of_the_run_comes_along(make_model, save, tmp_path):
    checkpoint = save(make_model())
    words = tokenizer.train(["one two three two one"] * 9, vocab_size=260)
    words.backend.save(str(tmp_path / "run" / "tokenizer.json"))
    export(checkpoint, tmp_path / "out")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = words.encode(["three two"])[0]
    assert theirs("three two")["input_ids"] == ids[:-1]  # ours ends the text
    assert theirs.decode(ids[:-1]) == "three two"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert theirs.eos_token_id == model.config.eos_token_id == words.eos_id


def test_an_existing_folder_is_left_alone(make_model, save, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=r"out: .* exists; give another folder"):
        export(save(make_model()), tmp_path / "out")


def test_nothing_half_written_stays(make_model, save, tmp_path, monkeypatch):
    checkpoint = save(make_model())
    monkeypatch.setattr("moe_toy.export.to_huggingface.to_theirs", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(checkpoint, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("change", [{}, {"norm.weight": torch.ones(3)}, {"balancer.bias": torch.ones(1, 3)}], ids=list)
def test_a_checkpoint_that_is_not_whole_is_refused(make_model, save, tmp_path, change):
    path = save(make_model(SIGMOID, bias=True))
    checkpoint = torch.load(path, weights_only=True)
    name = next(iter(change), "norm.weight")
    del checkpoint["state_dict"][f"model.{name}"]
    checkpoint["state_dict"] |= {f"model.{name}": tensor for name, tensor in change.items()}
    torch.save(checkpoint, path)
    with pytest.raises(
        UserError, match=rf"{name} is .* in the checkpoint and .* in the config; pass one that train.py"
    ):
        export(path, tmp_path / "out")


def test_a_checkpoint_without_a_model_is_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="carries no model config"):
        export(tmp_path / "other.ckpt", tmp_path / "out")
