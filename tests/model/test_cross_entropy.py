import pytest
import torch
import torch.nn.functional as F

from moe_toy.model import cross_entropy
from moe_toy.model.cross_entropy import mean_cross_entropy, most_likely, next_token_losses


def problem(dtype):
    torch.manual_seed(0)
    hidden = torch.randn(10, 8, dtype=dtype, requires_grad=True)
    weight = torch.randn(13, 8, dtype=dtype, requires_grad=True)
    return hidden, weight, torch.randint(13, (10,))


@pytest.mark.parametrize("rows", [1, 3, 5, 100])
def test_any_chunk_size_gives_the_loss_and_gradients_of_all_logits_at_once(monkeypatch, rows):
    monkeypatch.setitem(cross_entropy.CHUNK_LOGITS, "cpu", 13 * rows)
    hidden, weight, targets = problem(torch.float64)
    loss, whole = mean_cross_entropy(hidden, weight, targets), F.cross_entropy(hidden @ weight.T, targets)
    torch.testing.assert_close(loss, whole)
    for chunked, reference in zip(
        torch.autograd.grad(3 * loss, (hidden, weight)), torch.autograd.grad(3 * whole, (hidden, weight)), strict=True
    ):
        torch.testing.assert_close(chunked, reference)


def test_logits_far_apart_keep_a_finite_loss():
    hidden = torch.tensor([[300.0]])
    loss = mean_cross_entropy(hidden, torch.tensor([[1.0], [-1.0]]), torch.tensor([1]))
    assert loss.item() == pytest.approx(600.0)


def test_under_autocast_products_are_bf16_and_the_loss_is_fp32():
    hidden, weight, targets = problem(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = mean_cross_entropy(hidden, weight, targets)
    assert loss.dtype == torch.float32
    whole = F.cross_entropy(hidden @ weight.T, targets)
    torch.testing.assert_close(loss, whole, atol=0.05, rtol=0.05)
    for chunked, reference in zip(
        torch.autograd.grad(loss, (hidden, weight)), torch.autograd.grad(whole, (hidden, weight)), strict=True
    ):
        assert chunked.dtype == torch.float32
        torch.testing.assert_close(chunked, reference, atol=0.02, rtol=0.05)


def test_chunks_of_bf16_add_up_to_what_fp32_gives(monkeypatch):
    """Summed in bf16, hundreds of chunks would lose most of what the later ones add."""
    monkeypatch.setitem(cross_entropy.CHUNK_LOGITS, "cpu", 16)
    torch.manual_seed(0)
    hidden, targets = torch.rand(2000, 4).bfloat16(), torch.zeros(2000, dtype=torch.int64)
    weight = torch.randn(16, 4).bfloat16().requires_grad_()
    (chunked,) = torch.autograd.grad(mean_cross_entropy(hidden, weight, targets), weight)
    exact = weight.detach().float().requires_grad_()
    (reference,) = torch.autograd.grad(F.cross_entropy(hidden.float() @ exact.T, targets), exact)
    assert chunked.dtype == torch.bfloat16
    torch.testing.assert_close(chunked.float(), reference, rtol=0.01, atol=0.001)


def test_losses_are_those_of_the_next_tokens():
    logits, token_ids = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
    losses = next_token_losses(logits, token_ids)
    assert losses.shape == (2, 4)
    torch.testing.assert_close(losses[1, 2], F.cross_entropy(logits[1, 2], token_ids[1, 3]))


def test_the_most_likely_token_is_the_first_of_equals():
    logits = torch.randn(2, 5, 40, generator=torch.Generator().manual_seed(0))
    logits[0, 0, [3, 7]] = 9.0
    logits[1, 2, [4, 30]] = torch.nan
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert torch.equal(most_likely(logits.to(dtype)), logits.to(dtype).argmax(-1))
    assert most_likely(logits)[0, 0] == 3


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_the_pass_for_a_compiler_gives_loss_and_gradient(dtype):
    torch.manual_seed(0)
    logits, target = torch.randn(6, 13).to(dtype).requires_grad_(), torch.randint(13, (6,))
    loss, gradient = cross_entropy.loss_and_gradient(logits.detach(), target[:, None])
    whole = F.cross_entropy(logits.to(loss.dtype), target, reduction="sum")
    torch.testing.assert_close(loss, whole.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(whole, logits)[0])
