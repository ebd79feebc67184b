"""`from moe_toy import evaluate`: three lines in a notebook."""

import pandas as pd
import pytest
import torch

from moe_toy import evaluate
from moe_toy.balance.base import LoadBalancer
from moe_toy.errors import UserError
from moe_toy.metrics import analyze
from moe_toy.model.config import ModelConfig, MoEConfig
from moe_toy.model.transformer import MoETransformer
from tests.evaluation.conftest import tiny_model
from tests.metrics.conftest import load_golden, random_trace
from tests.model.conftest import MODEL, MOE

QUICK = {"segment_lengths": (4, 16), "intervals": False, "cache_stride": 1, "min_token_count": 2}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MOE_TOY_DATA", str(tmp_path / "cache"))


def test_a_trace_gives_the_tables_of_analyze_and_more():
    trace = load_golden("sticky_e16k4").trace
    tables = evaluate(trace, **QUICK)
    expected = analyze(trace, (4, 16), cache_stride=1, min_token_count=2)
    for name in ("srp", "cache", "specialization", "load"):
        pd.testing.assert_frame_equal(tables[name], expected[name])
    assert {"balance", "nulls", "correlations"} < set(tables)


def test_a_trace_without_domains_is_one_domain():
    assert set(evaluate(random_trace(domains=1, seq=20), **QUICK)["srp"].domain.dropna()) == {"0"}


def test_a_transformers_model_in_memory(texts, tokenizer_file):
    tables = evaluate(tiny_model("mixtral"), texts, tokenizer=tokenizer_file, samples=2, length=32, **QUICK)
    assert tables["loss"].domain.tolist() == ["fruit", "numbers"]


def test_our_model_in_memory(texts, tokenizer_file):
    tables = evaluate(our_model(), texts, tokenizer=tokenizer_file, samples=2, length=32, **QUICK)
    assert tables["load"].expert.nunique() == 8


def test_a_model_in_memory_needs_a_tokenizer(texts):
    with pytest.raises(UserError, match="pass tokenizer="):
        evaluate(tiny_model("mixtral"), texts)


def test_something_else_is_no_model(texts):
    with pytest.raises(UserError, match="a Linear is no model"):
        evaluate(torch.nn.Linear(2, 2), texts)


def test_a_model_of_two_sides_is_refused(texts, tokenizer_file):
    """It was a traceback of transformers, which missed the input of the decoder."""
    with pytest.raises(UserError, match=r"SwitchTransformers.* has an encoder and a decoder; save it, .*target.part="):
        evaluate(tiny_model("switch_transformers"), texts, tokenizer=tokenizer_file, samples=2, length=32, **QUICK)


def our_model() -> MoETransformer:
    config = ModelConfig(**MODEL | {"vocab_size": 300}, moe=MoEConfig(**MOE))
    return MoETransformer(config, LoadBalancer(num_layers=2, num_experts=8))


@pytest.mark.parametrize("make", [our_model, lambda: tiny_model("mixtral")], ids=["ours", "transformers"])
@pytest.mark.parametrize("fails", [False, True], ids=["measured", "failed"])
def test_a_model_is_left_as_it_was(make, fails, texts, tokenizer_file, tmp_path):
    """No hook, in training where it was, and it can be saved; also after an exception within a forward pass."""
    model = make().train()
    modules = list(model.modules())
    modules[-1].eval()  # a user may have frozen a part
    if fails:
        handle = modules[-1].register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            evaluate(model, texts, tokenizer=tokenizer_file, samples=2, length=32, **QUICK)
        handle.remove()
    else:
        evaluate(model, texts, tokenizer=tokenizer_file, samples=2, length=32, **QUICK)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    assert [module.training for module in modules] == [True] * (len(modules) - 1) + [False]
    torch.save(model, tmp_path / "model.pt")
