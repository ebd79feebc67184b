import torch
import torch.nn.functional as F

from moe_toy.model.cross_entropy import next_token_losses


def test_losses_are_those_of_the_next_tokens():
    logits, token_ids = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
    losses = next_token_losses(logits, token_ids)
    assert losses.shape == (2, 4)
    torch.testing.assert_close(losses[1, 2], F.cross_entropy(logits[1, 2], token_ids[1, 3]))
