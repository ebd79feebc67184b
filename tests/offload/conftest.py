"""Small models with experts to load, their store, and engines that read it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from moe_toy.balance.loss_free import LossFreeBias
from moe_toy.model.transformer import MoETransformer
from moe_toy.offload.cache import ExpertCache, lookups_of
from moe_toy.offload.decode import Decoded, decode
from moe_toy.offload.engine import Account, Engine
from moe_toy.offload.experts import offloaded
from moe_toy.offload.policies import new_policy
from moe_toy.offload.readers import open_reader
from moe_toy.offload.store import Store, write_store
from tests.model.conftest import make_config  # noqa: F401

PROMPT, LENGTH = 9, 24


@pytest.fixture
def make_model(make_config):  # noqa: F811
    """A model in eval mode whose balancer moves the choice of experts."""

    def make(**changes) -> MoETransformer:
        torch.manual_seed(0)
        config = make_config(**changes)
        sizes = {"num_layers": len(config.moe_layers), "num_experts": config.moe.num_experts}
        model = MoETransformer(config, LossFreeBias(rate=0.1, **sizes)).eval()
        torch.nn.init.normal_(model.balancer.bias, std=0.1)
        return model

    return make


@pytest.fixture
def model(make_model):
    return make_model()


@pytest.fixture
def tokens():
    torch.manual_seed(1)
    return torch.randint(50, (LENGTH,))


@pytest.fixture
def store(model, tmp_path) -> Store:
    return write_store(model, tmp_path / "experts.bin", "float32")


@contextmanager
def engine_of(store: Store, capacity: int, kind="page_cache", threads=1, delay=0.0) -> Iterator[Engine]:
    reader = open_reader(store, kind, delay)
    engine = Engine(reader, row_bytes=store.layout.row_bytes, num_slots=capacity, threads=threads)
    try:
        yield engine
    finally:
        engine.close()


def decode_resident(model: MoETransformer, tokens: torch.Tensor, prompt_length: int = PROMPT) -> Decoded:
    return decode(model, tokens, prompt_length, Account())


def decode_offloaded(model, store, tokens, capacity, policy="lru", **options) -> Decoded:
    """With one cache for all layers."""
    recorded = []
    if policy == "belady":
        seen = decode_resident(model, tokens).expert_ids
        recorded = [item for items in lookups_of(seen, store.layout.num_experts, PROMPT) for item in items]
    with engine_of(store, capacity, **options) as engine:
        cache = ExpertCache(capacity, new_policy(policy, recorded))
        engine.start(lambda layer: cache)
        with offloaded(model, engine, store.layout):
            return decode(model, tokens, PROMPT, engine.account)
