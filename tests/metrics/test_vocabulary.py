"""Vocabulary specialization against golden data and by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from moe_toy.metrics import SRP, VocabularySpecialization, pearson
from moe_toy.metrics.vocabulary import strongest_tokens, vocabulary_scores

KINDS = ["input", "predicted", "target"]


def scores(trace, **options):
    layers = trace.expert_ids.shape[0]
    metric = VocabularySpecialization(
        num_layers=layers, num_experts=trace.num_experts, vocab_size=trace.vocab_size, **options
    )
    metric.update(trace)
    return metric.compute()


@pytest.mark.parametrize(("column", "kind"), list(enumerate(KINDS)), ids=KINDS)
def test_equals_the_published_code(golden, column, kind):
    got = scores(golden.trace)[kind]
    np.testing.assert_allclose(got.value, golden["exp_vspec"][..., column], atol=1e-5)
    assert got.mean == pytest.approx(golden["exp_vspec_mean"][column], abs=1e-5, nan_ok=True)
    metric = SRP(**golden.sizes, segment_length=16)
    metric.update(golden.trace)
    correlation = pearson(got.value, metric.compute().expert.srp)
    assert correlation == pytest.approx(golden["exp_vspec_corr"][column], abs=1e-4, nan_ok=True)


def test_hand_computed():
    counts = torch.tensor([[[6, 1, 1, 0], [2, 3, 1, 0], [0, 0, 0, 1]]])  # one layer, three experts, four ids
    got = vocabulary_scores(counts, min_token_count=2, num_strongest=2)
    assert got.value[0, 0] == pytest.approx((6 / 8 + 1 / 2) / 2)  # id 2 is a tie: the lower expert owns it
    assert got.value[0, 1] == pytest.approx(3 / 4)
    assert got.value[0, 2].isnan()  # its only id is too rare
    assert got.owned.tolist() == [[2, 1, 0]]
    assert got.strongest_ids.tolist() == [[[0, 2], [1, -1], [-1, -1]]]
    assert got.strongest[0, 0].tolist() == [0.75, 0.5]


def test_equally_strong_tokens_rank_by_frequency():
    counts = torch.tensor([[[3, 5, 4]]])
    assert vocabulary_scores(counts, 1, 3).strongest_ids.tolist() == [[[1, 2, 0]]]


def test_target_is_the_next_token_of_the_same_sequence(trace_of):
    trace = replace(trace_of([(0,), (1,), (1,)], 2), token_ids=torch.tensor([[5, 6, 7]]), vocab_size=8)
    metric = VocabularySpecialization(num_layers=1, num_experts=2, vocab_size=8, kinds=["target"])
    metric.update(trace)
    assert metric.target.nonzero().tolist() == [[0, 0, 6], [0, 1, 7]]


def test_without_predictions_their_score_is_undefined(make_trace):
    got = scores(replace(make_trace(), predicted_ids=None), min_token_count=1)
    assert got["predicted"].value.isnan().all()
    assert not got["input"].value.isnan().all()


def test_token_outside_the_vocabulary_is_refused(make_trace):
    with pytest.raises(ValueError, match="but vocab_size is 3; pass the size"):
        scores(replace(make_trace(), vocab_size=3))


def test_each_expert_lists_what_it_owns_strongest_first():
    # one layer, two experts, four ids: expert 0 owns ids 0 (3 of 4) and 2 (all), expert 1 owns id 1; id 3 never occurs
    counts = torch.tensor([[[3, 1, 2, 0], [1, 4, 0, 0]]])
    table = strongest_tokens({"input": vocabulary_scores(counts, min_token_count=1)}, "id {}".format, layer_ids=[7])
    assert table.to_numpy().tolist() == [
        [7, 0, "input", 0, 2, "id 2", 1.0],
        [7, 0, "input", 1, 0, "id 0", 0.75],
        [7, 1, "input", 0, 1, "id 1", 0.8],
    ]
    assert table.columns.tolist() == ["layer", "expert", "kind", "rank", "token_id", "token", "strength"]
