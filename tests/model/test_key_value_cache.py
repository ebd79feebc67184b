"""Reading token by token gives what reading all at once gives, for every variant of the model."""

import pytest
import torch

from moe_toy.balance.base import LoadBalancer
from moe_toy.balance.loss_free import LossFreeBias
from moe_toy.locality.base import LocalityScheme
from moe_toy.locality.cache_prior import CachePrior
from moe_toy.locality.document_pool import DocumentPool
from moe_toy.locality.residency import Residency
from moe_toy.model.transformer import MoETransformer

VARIANTS = {
    "baseline": {},
    "shared experts": {"num_shared_experts": 2, "num_experts": 6, "ffn_budget": 64},
    "dense alternate": {"num_layers": 4, "moe_layer_period": 2, "dense_ffn": "slim"},
    "dense first": {"num_layers": 3, "num_leading_dense_layers": 1},
    "sigmoid": {"router": "sigmoid"},
    "softmax first": {"router": "softmax_then_topk", "normalize_weights": False},
    "as many heads": {"num_kv_heads": 2},
    "grouped": {"backend": "auto"},
}
LIMITS = {
    "residency": Residency(swaps=1),
    "document_pool": DocumentPool(smallest=4, largest=6, evaluated=4),
    "cache_prior": CachePrior(LocalityScheme(), strength=0.5, capacity=3),
}


def biased_model(config) -> MoETransformer:
    torch.manual_seed(0)
    sizes = {"num_layers": len(config.moe_layers), "num_experts": config.moe.num_experts}
    model = MoETransformer(config, LossFreeBias(rate=0.1, **sizes)).eval()
    torch.nn.init.normal_(model.balancer.bias, std=0.1)
    return model


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("pieces", [[9] + [1] * 11, [1] * 20, [5, 7, 1, 7]], ids=["prompt", "tokens", "chunks"])
def test_reading_in_pieces_equals_reading_at_once(make_config, changes, pieces):
    model = biased_model(make_config(**changes))
    tokens = torch.randint(50, (2, sum(pieces)))
    whole = model(tokens)
    caches = model.new_caches(batch=2, max_len=sum(pieces))
    end = 0
    for piece in pieces:
        logits, expert_ids = model.extend(tokens[:, end : end + piece], caches)
        seen, end = slice(end, end + piece), end + piece
        torch.testing.assert_close(logits, whole.logits[:, end - 1], atol=1e-4, rtol=1e-4)
        assert torch.equal(expert_ids, whole.trace.expert_ids[:, :, seen])


@pytest.mark.parametrize("pieces", [[9] + [1] * 11, [5, 7, 1, 7]], ids=["prompt", "chunks"])
@pytest.mark.parametrize("limit", LIMITS.values(), ids=LIMITS)
def test_limits_hold_across_pieces(make_config, limit, pieces):
    """They depend on earlier tokens, but never on where a piece began."""
    torch.manual_seed(0)
    balancer = LoadBalancer(num_layers=2, num_experts=8)
    model = MoETransformer(make_config(), balancer, limit).double().eval()
    free = MoETransformer(make_config(), balancer).double().eval()
    free.load_state_dict(model.state_dict())
    tokens = torch.randint(50, (2, sum(pieces)))
    expert_ids = model.route(tokens)
    assert not torch.equal(expert_ids, free.route(tokens))
    caches = model.new_caches(batch=2, max_len=sum(pieces))
    found = [model.extend(piece, caches)[1] for piece in tokens.split(pieces, dim=1)]
    assert torch.equal(torch.cat(found, dim=2), expert_ids)


def test_a_prompt_is_read_bit_by_bit_as_without_a_cache(make_config):
    model = biased_model(make_config())
    tokens = torch.randint(50, (1, 12))
    logits, _ = model.extend(tokens, model.new_caches(1, 12))
    x, _ = model._run_blocks(tokens)
    assert torch.equal(logits, model.unembedding(model.norm(x[:, -1])))


def test_no_position_beyond_the_longest_is_taken_for_another(make_config):
    """One place left for two tokens would give both the same."""
    model = biased_model(make_config(max_seq_len=8))
    tokens = torch.randint(50, (1, 9))
    caches = model.new_caches(1, 9)
    model.extend(tokens[:, :7], caches)
    with pytest.raises(ValueError, match=r"a sequence of 9 tokens exceeds model.max_seq_len \(8\)"):
        model.extend(tokens[:, 7:], caches)
    with pytest.raises(ValueError, match=r"a sequence of 9 tokens exceeds"):
        model(tokens)


def test_a_model_in_training_mode_reads_nothing_in_pieces(make_config):
    """Blocks that are recomputed would keep nothing of what they read."""
    model = biased_model(make_config(activation_checkpointing=True)).train()
    with pytest.raises(ValueError, match=r"in training mode cannot extend .* call eval\(\) before"):
        model.extend(torch.randint(50, (1, 3)), model.new_caches(1, 3))
