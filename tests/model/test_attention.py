import torch

from moe_toy.model.attention import Attention, rotary_table, rotate


def test_rotation_makes_scores_depend_on_distance_only():
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 8)
    table = rotary_table(10, 8, 10000.0)
    scores = rotate(query.expand(1, 1, 10, 8), table) @ rotate(key.expand(1, 1, 10, 8), table).mT
    torch.testing.assert_close(scores[0, 0, 7, 4], scores[0, 0, 3, 0])
    assert (scores[0, 0, 7, 4] - scores[0, 0, 7, 3]).abs() > 1e-3


def test_rotation_is_as_exact_in_bf16_as_its_result():
    x, table = torch.randn(1, 1, 300, 8).bfloat16(), rotary_table(300, 8, 10000.0)
    rotated = rotate(x, table)
    assert rotated.dtype == torch.bfloat16
    assert torch.equal(rotated, rotate(x.float(), table).bfloat16())


def test_attention_never_looks_ahead(make_config):
    torch.manual_seed(0)
    attention, table = Attention(make_config()), rotary_table(6, 8, 10000.0)
    x = torch.randn(1, 6, 16)
    changed = x.clone()
    changed[:, 4:] += 1.0
    before, after = attention(x, table), attention(changed, table)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_grouped_heads_equal_full_heads_with_repeated_keys_and_values(make_config):
    torch.manual_seed(0)
    grouped, full = Attention(make_config()), Attention(make_config(num_kv_heads=2))
    query, key, value = grouped.qkv.weight.detach().split((16, 8, 8))
    full.load_state_dict(
        grouped.state_dict() | {"qkv.weight": torch.cat((query, key, key, value, value))},
    )
    x, table = torch.randn(2, 6, 16), rotary_table(6, 8, 10000.0)
    torch.testing.assert_close(grouped(x, table), full(x, table))
