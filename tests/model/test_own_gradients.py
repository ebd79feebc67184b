"""The norm's backward pass by hand against autograd's, from inputs that are views as in the model."""

import torch
import torch.nn.functional as F

from moe_toy.model.layers import RMSNorm
from moe_toy.model.own_gradients import OwnRMSNorm


def test_values_have_the_same_bits_and_gradients_are_equal():
    torch.manual_seed(0)
    x = torch.randn(2, 5, 4, 6, dtype=torch.float64).transpose(1, 2).requires_grad_()
    weight, cotangent = torch.randn(6, dtype=torch.float64, requires_grad=True), torch.randn(2, 4, 5, 6).double()
    ours, theirs = OwnRMSNorm.apply(x, weight, 1e-5), F.rms_norm(x, (6,), weight, 1e-5)
    assert torch.equal(ours, theirs)
    gradients = [torch.autograd.grad(y, (x, weight), cotangent) for y in (ours, theirs)]
    for gradient, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, reference)


def test_in_bf16_bits_are_the_same_too_and_gradients_as_exact():
    torch.manual_seed(0)
    x, weight, cotangent = torch.randn(40, 32).bfloat16(), torch.rand(32).bfloat16() + 0.5, torch.randn(40, 32)
    exact = [tensor.double().requires_grad_() for tensor in (x, weight)]
    F.rms_norm(exact[0], (32,), exact[1], 1e-5).backward(cotangent.bfloat16().double())
    ways = []
    for norm in (lambda x, weight: OwnRMSNorm.apply(x, weight, 1e-5), lambda x, w: F.rms_norm(x, (32,), w, 1e-5)):
        inputs = [tensor.clone().requires_grad_() for tensor in (x, weight)]
        y = norm(*inputs)
        y.backward(cotangent.bfloat16())
        errors = [(ours.grad - true.grad).abs().max() for ours, true in zip(inputs, exact, strict=True)]
        ways.append((y, errors, [tensor.grad.dtype for tensor in inputs]))
    (ours, our_errors, dtypes), (theirs, their_errors, _) = ways
    assert torch.equal(ours, theirs)
    assert dtypes == [torch.bfloat16, torch.bfloat16]
    for our_error, their_error in zip(our_errors, their_errors, strict=True):
        assert our_error <= 1.01 * their_error


def test_norms_take_it_on_a_cpu_where_a_gradient_may_be_asked_for():
    norm, x = RMSNorm(6, eps=1e-5), torch.randn(5, 6)
    assert "OwnRMSNorm" in norm(x).grad_fn.name()
    assert "OwnRMSNorm" in norm(x.bfloat16()).grad_fn.name()
    assert "OwnRMSNorm" not in norm(x.half()).grad_fn.name()
    with torch.autocast("cpu", torch.bfloat16):
        assert "OwnRMSNorm" in norm(x).grad_fn.name()
    with torch.no_grad():
        assert torch.equal(norm(x), F.rms_norm(x, (6,), norm.weight, 1e-5))
