import pytest
import torch

from moe_toy.errors import UserError
from moe_toy.locality.document_pool import DocumentPool
from tests.behaviour.test_invariance import SEQ, VOCAB
from tests.locality.test_base import make_model
from tests.model.conftest import make_config  # noqa: F401 (a fixture)


def test_a_token_may_use_what_its_sequence_liked_best_so_far():
    scores = torch.rand(2, 6, 5, generator=torch.Generator().manual_seed(0))
    scheme = DocumentPool(smallest=2, largest=4, evaluated=3).eval()
    allowed = scheme.limit(torch.zeros(2, 6, dtype=torch.long))(scores, scores, 2)
    for sequence in range(2):
        for token in range(6):
            sums = [sum(scores[sequence, t, e].item() for t in range(token + 1)) for e in range(5)]
            best = sorted(range(5), key=lambda e: -sums[e])[:3]
            assert allowed[sequence, token].nonzero().flatten().tolist() == sorted(best)


def test_the_size_is_drawn_by_the_sequence_in_training_and_never_below_top_k():
    tokens = torch.randint(1000, (200, 8), generator=torch.Generator().manual_seed(0))
    scores = torch.rand(200, 8, 9, generator=torch.Generator().manual_seed(1))
    scheme = DocumentPool(smallest=2, largest=5, evaluated=3)
    sizes = scheme.limit(tokens)(scores, scores, 3).sum(-1)
    assert (sizes == sizes[:, :1]).all()
    assert sizes.unique().tolist() == [3, 4, 5]
    assert torch.equal(sizes[:, 0], scheme.limit(tokens)(scores, scores, 3).sum(-1)[:, 0])
    counts = [(sizes[:, 0] == size).sum().item() for size in (4, 5)]
    assert min(counts) > 200 / 4 / 2  # of four sizes


def test_a_model_looks_at_no_later_token(make_config):  # noqa: F811
    tokens = torch.randint(VOCAB, (3, SEQ), generator=torch.Generator().manual_seed(1))
    model = make_model(make_config(), DocumentPool(smallest=3, largest=4, evaluated=3), scope="micro_batch").eval()
    whole, prefix = model(tokens), model(tokens[:, :5])
    assert torch.equal(whole.trace.expert_ids[:, :, :5], prefix.trace.expert_ids)


def test_a_range_that_is_none_is_refused():
    with pytest.raises(UserError, match=r"smallest \(4\) exceeds"):
        DocumentPool(smallest=4, largest=3, evaluated=3)
