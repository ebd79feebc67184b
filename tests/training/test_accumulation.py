import pytest

from moe_toy.errors import UserError
from moe_toy.training.accumulation import accumulated_alone, accumulated_batches


@pytest.mark.parametrize(("num_ranks", "expected"), [(1, 64), (8, 8), (64, 1)])
def test_more_ranks_accumulate_less(num_ranks, expected):
    assert accumulated_batches(1024, batch_size=16, num_ranks=num_ranks) == expected


@pytest.mark.parametrize("num_ranks", [3, 128])
def test_a_batch_that_ranks_cannot_share_is_refused(num_ranks):
    with pytest.raises(UserError, match=rf"global_batch_size \(1024\) must be a multiple .* x {num_ranks} = "):
        accumulated_batches(1024, batch_size=16, num_ranks=num_ranks)


def test_accumulation_is_not_said_twice():
    assert accumulated_alone(None, batch_size=16, accumulate_grad_batches=4) == 4
    assert accumulated_alone(1024, batch_size=16, accumulate_grad_batches=1) == 64
    with pytest.raises(UserError, match="accumulate_grad_batches=4 is derived from global_batch_size=1024"):
        accumulated_alone(1024, batch_size=16, accumulate_grad_batches=4)
