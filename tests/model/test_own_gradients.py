"""Backward passes written by hand against those of autograd, from inputs that are views as in the model."""

import pytest
import torch
import torch.nn.functional as F

from moe_toy.model.layers import RMSNorm, swiglu, weighted_swiglu
from moe_toy.model.own_gradients import OwnRMSNorm, OwnWeightedSwiGLU, takes_own_gradient

PAIRS = {  # ours, autograd's, shapes
    "norm": (
        lambda x, w: OwnRMSNorm.apply(x.transpose(1, 2), w, 1e-5),
        lambda x, w: F.rms_norm(x.transpose(1, 2), (6,), w, 1e-5),
        [(2, 5, 4, 6), (6,)],
    ),
    "swiglu": (OwnWeightedSwiGLU.apply, lambda x, w: swiglu(x) * w, [(7, 6), (7, 1)]),
}


@pytest.mark.parametrize("name", PAIRS)
def test_values_have_the_same_bits_and_gradients_are_equal(name):
    own, plain, shapes = PAIRS[name]
    torch.manual_seed(0)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    ours, theirs = own(*inputs), plain(*inputs)
    assert torch.equal(ours, theirs)
    cotangent = torch.randn(ours.shape, dtype=torch.float64)
    for gradient, reference in zip(
        torch.autograd.grad(ours, inputs, cotangent), torch.autograd.grad(theirs, inputs, cotangent), strict=True
    ):
        torch.testing.assert_close(gradient, reference)


def test_the_model_takes_them_on_a_cpu_in_full_precision():
    x = torch.randn(2, 4, 5, 6, requires_grad=True)
    weights = torch.ones(3, 1)

    def taken(x):
        rows = x.flatten()[:18].view(3, 6)
        values = [RMSNorm(6, eps=1e-5)(x), weighted_swiglu(rows, weights)]
        return [value.grad_fn.name().startswith("Own") for value in values]

    assert taken(x) == [True] * 2
    assert taken(x.bfloat16()) == [False] * 2
    with torch.no_grad():
        assert not takes_own_gradient(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not takes_own_gradient(x)
