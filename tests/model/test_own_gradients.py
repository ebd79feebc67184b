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


def test_norms_take_it_on_a_cpu_in_full_precision_where_a_gradient_may_be_asked_for():
    norm, x = RMSNorm(6, eps=1e-5), torch.randn(5, 6)
    assert "OwnRMSNorm" in norm(x).grad_fn.name()
    assert "OwnRMSNorm" not in norm(x.bfloat16()).grad_fn.name()
    with torch.autocast("cpu", torch.bfloat16):
        assert "OwnRMSNorm" not in norm(x).grad_fn.name()
    with torch.no_grad():
        assert torch.equal(norm(x), F.rms_norm(x, (6,), norm.weight, 1e-5))
