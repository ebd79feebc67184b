"""Small models with experts to load, their store, and engines that read it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from moe_toy.balance.loss_free import LossFreeBias
from moe_toy.model.transformer import MoETransformer
from moe_toy.offload.cache import lookups_of, new_caches
from moe_toy.offload.decode import Decoded, decode
from moe_toy.offload.engine import Account, Engine
from moe_toy.offload.experts import offloaded
from moe_toy.offload.readers import CPU, open_reader
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
def engine_of(store: Store, capacity: int, *, kind="page_cache", delay=0.0, device=None, **options) -> Iterator[Engine]:
    reader = open_reader(store, kind, delay, device or CPU)
    options = {"threads": 1, "device": device} | options
    engine = Engine(reader, row_bytes=store.layout.row_bytes, num_slots=capacity, **options)
    try:
        yield engine
    finally:
        engine.close()
        reader.close()


def decode_resident(model: MoETransformer, tokens: torch.Tensor, prompt_length: int = PROMPT) -> Decoded:
    return decode(model, tokens, prompt_length, Account())


def bytes_from_disk() -> int:
    """That this process has read so far."""
    return int(re.search(r"read_bytes: (\d+)", Path("/proc/self/io").read_text())[1])


def decode_offloaded(model, store, tokens, capacity, policy="lru", *, scope="model", prompt_length=PROMPT, **options):
    layout = store.layout
    seen = decode_resident(model, tokens, prompt_length).expert_ids if policy == "belady" else None
    lookups = [] if seen is None else lookups_of(seen, layout.num_experts, prompt_length)
    with engine_of(store, capacity, **options) as engine:
        engine.start(new_caches(policy, lookups, capacity - options.get("ahead", 0), layout.num_layers, scope))
        with offloaded(model, engine, layout):
            return decode(model, tokens, prompt_length, engine.account)
