"""Folders of transformers decoded with experts in slow memory: as transformers computes them, token by token."""

import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from moe_toy.export.from_huggingface import load_model
from moe_toy.export.to_huggingface import export
from moe_toy.offload.store import open_store, write_store
from tests import evaluate_run
from tests.behaviour.test_offload import FEW
from tests.evaluate_run import run_evaluation
from tests.evaluation.conftest import tiny_model, tokenizer_file  # noqa: F401
from tests.export.conftest import make_model, save  # noqa: F401
from tests.export.test_to_huggingface import SIGMOID, UNNORMALISED
from tests.offload.conftest import PROMPT, decode_offloaded

FAMILIES = {
    "qwen3_moe": ["moe=few_active"],
    "lara_mini": ["moe=two_shared_experts", *UNNORMALISED],
    "exaone_moe": [SIGMOID, "moe=shared_experts", "moe.num_leading_dense_layers=1"],
}
UNSHARED = {"shared_expert_intermediate_size": 0}


@pytest.fixture
def folder_of(tmp_path, tokenizer_file):  # noqa: F811
    """Of a random model of transformers' own."""

    def write(family: str, **changes) -> Path:
        tiny_model(family, **changes).save_pretrained(tmp_path / "tiny")
        shutil.copyfile(tokenizer_file, tmp_path / "tiny" / "tokenizer.json")
        return tmp_path / "tiny"

    return write


def assert_decodes_as_theirs(folder, vocab_size: int) -> None:
    """Logits of each token, decoded out of a few slots, are those of transformers' pass over all tokens at once."""
    model, theirs = load_model(folder).eval(), AutoModelForCausalLM.from_pretrained(folder).eval()
    store = write_store(model, folder / "experts.bin", "float32")
    assert open_store(store.path, load_model(folder)) == store
    tokens = torch.randint(vocab_size, (24,))
    least = store.layout.num_layers * model.config.moe.top_k
    decoded = decode_offloaded(model, store, tokens, least, threads=2)
    with torch.inference_mode():
        logits = theirs(tokens[None]).logits[0, PROMPT - 1 :]
    torch.testing.assert_close(decoded.logits, logits, atol=1e-4, rtol=0)


def test_a_model_of_theirs_decodes_as_there(folder_of):
    assert_decodes_as_theirs(folder_of("qwen3_moe", **UNSHARED), 320)


@pytest.mark.parametrize("overrides", FAMILIES.values(), ids=FAMILIES)
def test_every_family_decodes_as_there(make_model, save, tmp_path, overrides):  # noqa: F811
    export(save(make_model(*overrides, bias=SIGMOID in overrides)), tmp_path / "folder")
    assert_decodes_as_theirs(tmp_path / "folder", 300)


@pytest.fixture
def asked(texts, tmp_path):
    data = ["data=files", f"data.source.path={texts}", f"data.root={tmp_path / 'cache'}"]
    lengths = ["data.source.validation_fraction=0.5", "data.validation_length=32", "data.validation_samples=2"]
    return [*data, *lengths, *evaluate_run.QUICK, "target=huggingface", *FEW]


@pytest.fixture
def refuse(refusal, asked):
    return partial(refusal, "evaluate", *asked)


def test_a_folder_is_decoded_by_command(folder_of, asked, tmp_path):
    folder = folder_of("qwen3_moe", **UNSHARED)
    arguments = [*asked, f"target.path={folder}", "offload=page_cache", "metrics.min_token_count=2"]
    results = run_evaluation(tmp_path / "out", *arguments)
    table = results.tables["offload"]
    assert results.summary["target"] == "huggingface"
    assert table[table.domain.isna()].policy.tolist() == ["resident", "lru", "lru"]
    assert (tmp_path / "out" / "report.html").is_file()
    assert not (tmp_path / "out" / "offload").exists()


@pytest.mark.parametrize(
    ("family", "changes", "complaint"),
    [
        ("olmoe", {}, "is a olmoe; it must be one of qwen3_moe"),
        ("qwen3_moe", UNSHARED | {"attention_bias": True}, "attention_bias is True"),
        ("qwen3_moe", UNSHARED | {"head_dim": 16}, "head_dim is 16"),
    ],
)
def test_what_cannot_be_read_is_refused(refuse, folder_of, family, changes, complaint):
    line = refuse(f"target.path={folder_of(family, **changes)}", "offload=disk")
    assert line.startswith("error: offload decodes what moe_toy.export can read; folder: ")
    assert complaint in line
    assert line.endswith("; or offload=none\n")
