"""Text goes in, one compact trace per domain comes out."""

import math

import pytest
import tokenizers
import torch

from moe_toy import evaluate
from moe_toy.data.domains import FileDomains
from moe_toy.data.tokenizer import Tokenizer
from moe_toy.errors import UserError
from moe_toy.evaluation.capture import check_fits, record
from moe_toy.evaluation.pretrained_model import PretrainedModel
from moe_toy.evaluation.router_hooks import family_of
from moe_toy.evaluation.samples import Samples, Text
from moe_toy.evaluation.target import Limits
from tests.evaluation.conftest import tiny_model


@pytest.fixture
def model():
    return PretrainedModel(tiny_model("mixtral"), family_of("mixtral"))


def test_batches_only_bound_memory(model, samples):
    traces = [record(model, samples.batches("fruit", size), "fruit", samples.tokenizer) for size in (1, 3)]
    assert torch.equal(traces[0].expert_ids, traces[1].expert_ids)
    assert traces[0].expert_ids.dtype == torch.uint8
    assert traces[0].source["loss"]["fruit"] == pytest.approx(traces[1].source["loss"]["fruit"], rel=1e-5)


def test_the_loss_is_that_of_next_tokens_and_of_their_bytes(model, samples):
    trace = record(model, samples.batches("fruit", 3), "fruit", samples.tokenizer)
    token_ids = trace.token_ids.long()
    with torch.no_grad():
        logits = model.model(token_ids).logits
    nats = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), token_ids[:, 1:].flatten())
    assert trace.source["loss"]["fruit"] == pytest.approx(nats.item(), rel=1e-5)
    num_bytes = samples.tokenizer.token_bytes[token_ids[:, 1:]].sum().item()
    bits = nats.item() * token_ids[:, 1:].numel() / math.log(2) / num_bytes
    assert trace.source["bits_per_byte"]["fruit"] == pytest.approx(bits, rel=1e-5)


def test_a_model_that_computes_nan_is_refused(samples):
    broken = tiny_model("mixtral")
    torch.nn.init.constant_(broken.lm_head.weight, torch.nan)
    with pytest.raises(UserError, match="the loss of the model on fruit is NaN"):
        record(PretrainedModel(broken, family_of("mixtral")), samples.batches("fruit", 3), "fruit", samples.tokenizer)


def test_a_tokenizer_that_is_not_byte_level_gives_no_bits_per_byte(model, texts, tmp_path):
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0, "</s>": 1, "fig": 2}, unk_token="<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "words.json"))
    samples = samples_with(tmp_path / "words.json", texts, tmp_path)
    source = record(model, samples.batches("fruit", 3), "fruit", samples.tokenizer).source
    assert source["loss"]["fruit"] > 0
    assert source["bits_per_byte"]["fruit"] is None


def test_a_tokenizer_without_an_end_of_text_is_refused(texts, tmp_path):
    tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>")).save(str(tmp_path / "bare.json"))
    with pytest.raises(UserError, match=r"bare.json: the tokenizer has no end-of-text token"):
        samples_with(tmp_path / "bare.json", texts, tmp_path)


def test_text_must_fit_the_model(samples):
    check_fits(Limits(vocab_size=300, max_seq_len=32), samples)
    check_fits(Limits(vocab_size=300, max_seq_len=None), samples)
    with pytest.raises(UserError, match="the tokenizer has 300 tokens, but the model knows 299"):
        check_fits(Limits(vocab_size=299, max_seq_len=None), samples)
    with pytest.raises(UserError, match=r"data.validation_length=32 is longer than the 31 tokens"):
        check_fits(Limits(vocab_size=300, max_seq_len=31), samples)


def samples_with(tokenizer, texts, tmp_path) -> Samples:
    source = FileDomains(path=texts, validation_fraction=0.5, max_characters=1000)
    samples = Samples(Text(source, tmp_path / "cache", validation_samples=3, validation_length=32), tokenizer)
    samples.prepare()
    return samples


def test_known_ends_of_text():
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<｜end▁of▁sentence｜>": 0}, unk_token=None))
    assert Tokenizer(backend).eos_id == 0


def test_more_than_256_experts(samples):
    model = PretrainedModel(tiny_model("mixtral", num_local_experts=300), family_of("mixtral"))
    trace = record(model, samples.batches("fruit", 2), "fruit", samples.tokenizer)
    assert trace.expert_ids.dtype == torch.uint16
    assert set(evaluate(trace, segment_lengths=(4,), intervals=False)) >= {"srp", "nulls", "balance"}
