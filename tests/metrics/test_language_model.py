import math

import pytest
import torch

from moe_toy.metrics.language_model import LanguageModelLoss

TOKEN_BYTES = torch.tensor([0, 1, 4])  # token 0 is EOS


def make_metric() -> LanguageModelLoss:
    return LanguageModelLoss(num_domains=3, token_bytes=TOKEN_BYTES)


def test_bits_per_byte_counts_the_bytes_of_targets_only():
    metric = make_metric()
    token_ids = torch.tensor([[2, 1, 2], [2, 0, 1]])  # targets: 1 + 4 bytes; 0 + 1 bytes
    metric.update(torch.tensor([[1.0, 2.0], [0.5, 0.5]]), token_ids, torch.tensor([0, 1]))
    scores = metric.compute()
    assert scores.domain_loss[:2].tolist() == [1.5, 0.5]
    assert scores.domain_bits_per_byte[:2].tolist() == pytest.approx([3 / math.log(2) / 5, 1 / math.log(2)])


def test_the_model_value_is_the_mean_over_domains_that_have_text():
    metric = make_metric()
    for domain, batch in ((0, 3), (1, 1)):  # domain 2 stays empty
        losses = torch.full((batch, 2), 1.0 + 2 * domain)
        metric.update(losses, torch.ones(batch, 3, dtype=torch.long), torch.full((batch,), domain))
    scores = metric.compute()
    assert scores.domain_loss.isnan().tolist() == [False, False, True]
    assert scores.loss.item() == 2.0  # not 1.5: domains count alike however much text they have
    assert scores.perplexity.item() == pytest.approx(math.exp(2.0))


def test_a_loss_of_nan_is_not_passed_over():
    metric = make_metric()
    losses = torch.tensor([[1.0, math.nan], [1.0, 2.0]])
    metric.update(losses, torch.ones(2, 3, dtype=torch.long), torch.tensor([0, 1]))
    scores = metric.compute()
    assert scores.domain_loss.isnan().tolist() == [True, False, True]
    assert all(score.isnan() for score in (scores.loss, scores.perplexity, scores.bits_per_byte))


def test_batch_by_batch_equals_all_at_once():
    losses, token_ids, domain_ids = torch.rand(6, 4), torch.randint(1, 3, (6, 5)), torch.tensor([0, 0, 1, 1, 2, 2])
    at_once, batches = make_metric(), make_metric()
    at_once.update(losses, token_ids, domain_ids)
    for part in range(3):
        rows = slice(2 * part, 2 * part + 2)
        batches.update(losses[rows], token_ids[rows], domain_ids[rows])
    torch.testing.assert_close(at_once.compute().domain_bits_per_byte, batches.compute().domain_bits_per_byte)
