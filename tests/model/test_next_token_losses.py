import torch
import torch.nn.functional as F

from moe_toy.model.cross_entropy import most_likely, next_token_losses


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
