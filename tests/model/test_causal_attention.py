import pytest
import torch
import torch.nn.functional as F

from moe_toy.model import causal_attention
from moe_toy.model.causal_attention import OwnBlockedAttention, blocked_attention

WAYS = {"plain": blocked_attention, "own": OwnBlockedAttention.apply}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seq", [1, 8, 13, 24], ids=lambda seq: f"seq={seq}")
@pytest.mark.parametrize("kv_heads", [1, 2, 4], ids=lambda heads: f"kv_heads={heads}")
def test_blocks_equal_the_whole_in_values_and_gradients(monkeypatch, seq, kv_heads, way):
    monkeypatch.setattr(causal_attention, "BLOCK", 8)
    torch.manual_seed(0)
    query = torch.randn(2, 4, seq, 6, dtype=torch.float64, requires_grad=True)
    key, value = (torch.randn(2, kv_heads, seq, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    whole = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    blocked = WAYS[way](query, key, value)
    torch.testing.assert_close(blocked, whole)
    cotangent = torch.randn_like(whole)
    gradients = [torch.autograd.grad(y, (query, key, value), cotangent) for y in (blocked, whole)]
    for ours, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, reference)


def test_on_a_cpu_gradients_are_taken_by_hand_from_values_with_the_bits_of_the_plain_way():
    query, key, value = (torch.randn(2, 200, 2, 6, requires_grad=True).transpose(1, 2) for _ in range(3))
    out = causal_attention.causal_attention(query, key, value)
    assert "OwnBlockedAttention" in out.grad_fn.name()
    assert torch.equal(out, blocked_attention(query, key, value))


def test_so_they_are_under_autocast_from_inputs_in_its_dtype_only():
    torch.manual_seed(0)
    inputs = [torch.randn(2, 2, 200, 8, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    with torch.autocast("cpu", torch.bfloat16):
        own, plain = causal_attention.causal_attention(*inputs), blocked_attention(*inputs)
        of_fp32 = causal_attention.causal_attention(*(tensor.float() for tensor in inputs))
    assert "OwnBlockedAttention" in own.grad_fn.name()
    assert torch.equal(own, plain)
    assert "OwnBlockedAttention" not in of_fp32.grad_fn.name()
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    F.scaled_dot_product_attention(*exact, is_causal=True).sum().backward()
    for ours, theirs, true in zip(*(torch.autograd.grad(y.sum(), inputs) for y in (own, plain)), exact, strict=True):
        assert (ours - true.grad).abs().mean() <= 1.1 * (theirs - true.grad).abs().mean()
