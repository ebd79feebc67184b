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
    ranking = torch.rand(2, 6, 5, generator=torch.Generator().manual_seed(1))
    found = scheme.steer(torch.zeros(2, 6, dtype=torch.long))(ranking, scores, 2)
    for sequence in range(2):
        for token in range(6):
            sums = [sum(scores[sequence, t, e].item() for t in range(token + 1)) for e in range(5)]
            best = sorted(range(5), key=lambda e: -sums[e])[:3]
            allowed = found[sequence, token].isfinite()
            assert allowed.nonzero().flatten().tolist() == sorted(best)
            assert torch.equal(found[sequence, token, allowed], ranking[sequence, token, allowed])


def test_the_size_is_drawn_by_the_sequence_in_training_and_fixed_in_evaluation():
    tokens = torch.randint(1000, (200, 8), generator=torch.Generator().manual_seed(0))
    scores = torch.rand(200, 8, 9, generator=torch.Generator().manual_seed(1))
    scheme = DocumentPool(smallest=3, largest=6, evaluated=4)

    def sizes_of(tokens):
        return scheme.steer(tokens)(scores[: len(tokens)], scores[: len(tokens)], 3).isfinite().sum(-1)

    sizes = sizes_of(tokens)
    assert (sizes == sizes[:, :1]).all()
    assert sizes.unique().tolist() == [3, 4, 5, 6]
    assert torch.equal(sizes[:7], sizes_of(tokens[:7]))
    assert sizes[:, 0].bincount()[3:].min() > 200 / 4 / 2  # of four sizes
    assert sizes_of(tokens).float().mean() != 4
    scheme.eval()
    assert (sizes_of(tokens) == 4).all()


def test_a_model_looks_at_no_later_token(make_config):  # noqa: F811
    tokens = torch.randint(VOCAB, (3, SEQ), generator=torch.Generator().manual_seed(1))
    model = make_model(make_config(), DocumentPool(smallest=3, largest=4, evaluated=3), scope="micro_batch").eval()
    whole, prefix = model(tokens), model(tokens[:, :5])
    assert torch.equal(whole.trace.expert_ids[:, :, :5], prefix.trace.expert_ids)


def test_a_range_that_is_none_is_refused():
    with pytest.raises(UserError, match=r"smallest \(4\) exceeds"):
        DocumentPool(smallest=4, largest=3, evaluated=3)


@pytest.mark.parametrize(
    ("name", "size"), [("smallest", 1), ("largest", 9), ("evaluated", 1), ("evaluated", 9)], ids=str
)
def test_sizes_that_fit_no_model_are_refused(make_config, name, size):  # noqa: F811
    scheme = DocumentPool(**{"smallest": 3, "largest": 4, "evaluated": 3, name: size})
    with pytest.raises(UserError, match=rf"locality\.{name} \({size}\) is no size of a pool between moe\.top_k"):
        make_model(make_config(), scheme, scope="micro_batch")
