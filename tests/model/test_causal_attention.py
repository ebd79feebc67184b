import pytest
import torch
import torch.nn.functional as F

from moe_toy.model import causal_attention
from moe_toy.model.causal_attention import blocked_attention


@pytest.mark.parametrize("seq", [1, 8, 13, 24], ids=lambda seq: f"seq={seq}")
@pytest.mark.parametrize("kv_heads", [1, 2, 4], ids=lambda heads: f"kv_heads={heads}")
def test_blocks_equal_the_whole_in_values_and_gradients(monkeypatch, seq, kv_heads):
    monkeypatch.setattr(causal_attention, "BLOCK", 8)
    torch.manual_seed(0)
    query = torch.randn(2, 4, seq, 6, dtype=torch.float64, requires_grad=True)
    key, value = (torch.randn(2, kv_heads, seq, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    whole = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    blocked = blocked_attention(query, key, value)
    torch.testing.assert_close(blocked, whole)
    cotangent = torch.randn_like(whole)
    gradients = [torch.autograd.grad(y, (query, key, value), cotangent) for y in (blocked, whole)]
    for ours, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, reference)
