"""A replay reads what the simulator misses, rows of the size of their layers, and computes nothing."""

import pytest
import torch

from moe_toy.errors import UserError
from moe_toy.offload.cache import lookups_of, new_caches, simulate
from moe_toy.offload.engine import Engine
from moe_toy.offload.layout import PAGE
from moe_toy.offload.measure_replay import ReplayMeasurement
from moe_toy.offload.readers import open_reader
from moe_toy.offload.replay import REPLAYED, RowsOfLayers, replay, write_scratch
from moe_toy.offload.requests import requests_of
from moe_toy.offload.settings import OffloadSettings
from moe_toy.offload.tables import tables_of
from moe_toy.routing import RoutingTrace
from tests.offload.conftest import bytes_from_disk
from tests.offload.test_prediction import SETTINGS

EXPERT_BYTES = (PAGE + 1, 3 * PAGE)  # in whole pages: two and three
LAYERS, EXPERTS = 2, 12


@pytest.fixture
def expert_ids():
    torch.manual_seed(0)
    return torch.rand(LAYERS, 30, EXPERTS).topk(3).indices


@pytest.mark.parametrize("kind", ["disk", "page_cache", "host"])
@pytest.mark.parametrize("policy", ["lru", "belady"])
def test_bytes_are_those_of_the_missed_rows(tmp_path, expert_ids, kind, policy):
    lookups = lookups_of(expert_ids, EXPERTS, prompt_length=5)
    scratch = write_scratch(tmp_path / "rows.bin", max(EXPERT_BYTES), LAYERS * EXPERTS, most_bytes=7 * 3 * PAGE)
    assert scratch.path.stat().st_size == 7 * 3 * PAGE
    reader = RowsOfLayers(open_reader(scratch, kind), EXPERT_BYTES, EXPERTS)
    engine = Engine(reader, row_bytes=scratch.row_bytes, num_slots=9, threads=2)
    engine.start(new_caches(policy, lookups, 9, LAYERS))
    before = bytes_from_disk()
    costs = replay(engine, lookups, EXPERT_BYTES)
    read = bytes_from_disk() - before
    engine.close()
    reader.close()
    missed = simulate(policy, lookups, 9, LAYERS).reshape(-1, LAYERS)
    assert costs[:, REPLAYED.index("reads")].tolist() == missed.sum(1).tolist()
    assert costs[:, REPLAYED.index("bytes")].tolist() == (missed @ [2 * PAGE, 3 * PAGE]).tolist()
    assert read == (costs[:, -1].sum() if kind == "disk" else 0)
    assert (costs[:, 1] + costs[:, 2] <= costs[:, 0]).all()


def test_half_a_token_is_refused(tmp_path, expert_ids):
    scratch = write_scratch(tmp_path / "rows.bin", PAGE, 24)
    engine = Engine(open_reader(scratch, "host"), row_bytes=PAGE, num_slots=9, threads=1)
    with pytest.raises(UserError, match="whole number of tokens"):
        replay(engine, lookups_of(expert_ids, EXPERTS)[:-1], EXPERT_BYTES)


def test_tokens_may_have_fewer_experts():
    expert_ids = torch.tensor([[[0, -1], [2, 1]], [[-1, -1], [1, -1]]])
    assert lookups_of(expert_ids, 4) == [[0], [], [2, 1], [5]]
    assert lookups_of(expert_ids, 4, 2) == [[0, 2, 1], [5]]


def trace_of(expert_ids, **more):
    layers = len(expert_ids)
    return RoutingTrace(
        expert_ids=expert_ids[:, None],
        token_ids=None,
        num_experts=EXPERTS,
        layer_ids=tuple(range(layers)),
        domain_ids=torch.zeros(1, dtype=torch.int64),
        domains=("chat",),
        **more,
    )


def settings(**changes):
    return OffloadSettings(**SETTINGS | {"policies": ["lru"], "cache_ratios": [1], "prompt_length": 4} | changes)


def test_requests_are_cut_and_know_their_prompt(expert_ids):
    found = requests_of([trace_of(expert_ids)], settings(), 5000)
    (request,) = found.requests
    assert (request.domain, request.prompt_length, request.expert_ids.shape) == ("chat", 4, (LAYERS, 4 + 8, 3))
    assert found.expert_bytes == [5000] * LAYERS
    recorded = trace_of(expert_ids, prompt_lengths=torch.tensor([20]), expert_bytes=EXPERT_BYTES)
    found = requests_of([recorded, recorded], settings(samples_per_domain=2), None)
    assert [request.expert_ids.shape[1] for request in found.requests] == [28, 28]
    assert [request.number for request in found.requests] == [0, 1]
    assert found.expert_bytes == list(EXPERT_BYTES)
    assert len(requests_of([recorded, recorded], settings(), None).requests) == 1


def test_what_cannot_be_replayed_is_refused(expert_ids):
    with pytest.raises(UserError, match="give expert_bytes"):
        requests_of([trace_of(expert_ids)], settings(), None)
    with pytest.raises(UserError, match="no request is longer"):
        requests_of([trace_of(expert_ids)], settings(prompt_length=30), 5000)
    with pytest.raises(UserError, match="models of different sizes"):
        requests_of([trace_of(expert_ids), trace_of(expert_ids[..., :2])], settings(samples_per_domain=2), 5000)


def test_a_replay_is_measured_there_and_back(expert_ids, tmp_path):
    asked = settings(policies=["lru", "lfu"], cache_ratios=[1, 2], store="host")
    found = requests_of([trace_of(expert_ids)], asked, 5000)
    tables, facts = tables_of(ReplayMeasurement(*found, asked, tmp_path))
    table = tables["offload"]
    assert not facts["computes"]
    pooled = table[table.domain.isna()]
    assert pooled.capacity.tolist() == [6, 6, 12, 12]
    assert pooled.hit_rate.tolist() == pooled.simulated_hit_rate.tolist()
    assert (pooled.bytes_per_token == pooled.reads_per_token * 2 * PAGE).all()
    assert pooled.tokens.tolist() == [16] * 4
