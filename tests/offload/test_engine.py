"""Decoding out of slots equals decoding with all experts at hand, and loads exactly what the simulator says."""

import gc
import resource

import numpy as np
import pytest
import torch

from moe_toy.errors import UserError
from moe_toy.metrics.cache import cache_hits
from moe_toy.offload.cache import lookups_of, new_caches, simulate
from moe_toy.offload.decode import COLUMNS, decode
from moe_toy.offload.experts import offloaded
from moe_toy.offload.store import write_store
from tests.offload.conftest import LENGTH, PROMPT, bytes_from_disk, decode_offloaded, decode_resident, engine_of

POLICIES = ["lru", "lfu", "belady", "random"]
CAPACITIES = [2, 3, 5, 8, 16]
READS = COLUMNS.index("reads")
VARIANTS = {
    "shared experts": {"num_shared_experts": 2, "num_experts": 6},
    "dense alternate": {"num_layers": 4, "moe_layer_period": 2, "dense_ffn": "slim"},
    "sigmoid": {"router": "sigmoid"},
    "softmax first": {"router": "softmax_then_topk", "normalize_weights": False},
    "grouped": {"backend": "auto", "ffn_budget": 128},
    "odd width": {"num_experts": 4, "ffn_budget": 28},
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("capacity", CAPACITIES)
def test_logits_are_those_of_the_resident_model_bit_by_bit(model, store, tokens, capacity, policy):
    resident = decode_resident(model, tokens)
    decoded = decode_offloaded(model, store, tokens, capacity, policy)
    assert torch.equal(decoded.logits, resident.logits)
    assert torch.equal(decoded.expert_ids, resident.expert_ids)


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_variant_and_dtype_decodes_bit_by_bit(make_model, tokens, tmp_path, changes, dtype):
    model = make_model(**changes).to(getattr(torch, dtype))
    store = write_store(model, tmp_path / "experts.bin", dtype)
    resident = decode_resident(model, tokens)
    for capacity in (2, 5):
        assert torch.equal(decode_offloaded(model, store, tokens, capacity).logits, resident.logits)


@pytest.mark.parametrize("kind", ["disk", "page_cache", "host"])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_store_gives_the_same(model, store, tokens, kind, threads):
    decoded = decode_offloaded(model, store, tokens, 4, kind=kind, threads=threads)
    assert torch.equal(decoded.logits, decode_resident(model, tokens).logits)


def test_the_model_has_its_own_experts_back(model, store, tokens):
    before = [block.ffn.experts for block in model.blocks]
    decode_offloaded(model, store, tokens, 4)
    assert [block.ffn.experts for block in model.blocks] == before


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("capacity", CAPACITIES)
def test_reads_are_the_misses_of_the_simulator(model, store, tokens, capacity, policy):
    decoded = decode_offloaded(model, store, tokens, capacity, policy)
    lookups = lookups_of(decoded.expert_ids, store.layout.num_experts, PROMPT)
    misses = simulate(policy, lookups, capacity, 2).reshape(-1, store.layout.num_layers).sum(1)
    assert decoded.costs[:, READS].tolist() == misses.tolist()
    requests = [sum(map(len, lookups[:2])), *[4] * (LENGTH - PROMPT)]
    assert decoded.costs[:, COLUMNS.index("requests")].tolist() == requests


@pytest.mark.parametrize("policy", ["lru", "lfu", "belady"])
@pytest.mark.parametrize("prompt_length", [0, 1, 7])
def test_hits_are_those_of_the_metric(policy, prompt_length):
    """In layer order, one cache of all layers, first requests are misses, at every capacity that holds a lookup."""
    torch.manual_seed(3)
    layers, seq, experts, k = 3, 60, 12, 3
    popular = torch.linspace(0, 2, experts)
    expert_ids = (torch.rand(layers, 1, seq, experts) + popular).topk(k).indices
    prompts = torch.tensor([prompt_length]) if prompt_length else None
    options = {"policy": policy, "scope": "model", "cold": "miss", "order": "layer", "prompt_lengths": prompts}
    hits, requests = cache_hits(expert_ids, experts, **options)
    lookups = lookups_of(expert_ids[:, 0], experts, prompt_length)
    decoding = slice(layers if prompt_length else 0, None)
    assert requests.item() == sum(map(len, lookups[decoding]))
    for capacity in range(k, layers * experts + 1):
        missed = simulate(policy, lookups, capacity, layers)[decoding].sum()
        assert requests.item() - missed == hits[0, 0, capacity - 1], capacity


def test_bytes_read_are_misses_times_rows_to_the_disk_too(model, store, tokens):
    gc.collect()
    before = bytes_from_disk()
    decoded = decode_offloaded(model, store, tokens, 3, kind="disk", threads=2)
    assert bytes_from_disk() - before == decoded.costs[:, READS].sum() * store.layout.row_bytes > 0


def test_with_room_for_all_each_expert_is_read_once(model, store, tokens):
    decoded = decode_offloaded(model, store, tokens, store.layout.num_rows)
    used = {item for items in lookups_of(decoded.expert_ids, store.layout.num_experts) for item in items}
    assert decoded.costs[:, READS].sum() == len(used)


@pytest.mark.parametrize("policy", ["lru", "lfu", "random"])
def test_even_routing_hits_as_often_as_the_cache_is_large(policy):
    """C of E experts, one layer; seven standard deviations of so many lookups are .03."""
    torch.manual_seed(0)
    experts, seq = 16, 6000
    expert_ids = torch.rand(1, seq, experts).argsort(-1)[..., :1]
    for capacity in (4, 8, 12):
        missed = simulate(policy, lookups_of(expert_ids, experts), capacity, 1).mean()
        assert 1 - missed == pytest.approx(capacity / experts, abs=0.03)


def test_one_cache_per_layer_is_the_metric_of_layers(model, store, tokens):
    share = 3
    decoded = decode_offloaded(model, store, tokens, 2 * share, scope="layer", prompt_length=1)
    assert torch.equal(decoded.logits, decode_resident(model, tokens, 1).logits)
    hits, requests = cache_hits(decoded.expert_ids[:, None], store.layout.num_experts, policy="lru", cold="miss")
    assert requests.sum() - decoded.costs[:, READS].sum() == hits[..., share - 1].sum()
    lookups = lookups_of(decoded.expert_ids, store.layout.num_experts, 1)
    assert decoded.costs[:, READS].sum() == simulate("lru", lookups, 2 * share, 2, "layer").sum()


def test_a_prompt_with_more_experts_than_slots_is_read_in_parts(model, store, tokens):
    decoded = decode_offloaded(model, store, tokens, 2)
    prompt = lookups_of(decoded.expert_ids[:, :PROMPT], store.layout.num_experts, PROMPT)
    assert min(map(len, prompt)) > 2
    assert decoded.costs[0, READS] == sum(map(len, prompt))


def test_times_of_a_token_add_up(model, store, tokens):
    costs = decode_offloaded(model, store, tokens, 3, delay=0.002).costs
    seconds, stall, management = costs[:, 0], costs[:, 1], costs[:, 2]
    assert (stall + management <= seconds).all()
    assert (stall >= 0.002 * costs[:, READS]).all()
    assert np.array_equal(stall > 0, costs[:, COLUMNS.index("rounds")] > 0)


@pytest.mark.parametrize(("missed", "shares"), [(8, 3), (2, 2), (1, 0)])
def test_each_thread_is_handed_its_share_of_rows_at_once(store, monkeypatch, missed, shares):
    with engine_of(store, 8, threads=3) as engine:
        submit, handed = engine.pool.submit, []
        monkeypatch.setattr(engine.pool, "submit", lambda *work: handed.append(work) or submit(*work))
        engine.start(new_caches("lru", [], 8, 2))
        steps = [step for part in engine.fetch(0, range(missed)) for step in part]
        assert len(handed) == shares
        for item, slot, _ in steps:
            row = bytearray(store.path.read_bytes()[store.offset(item) :][: store.layout.row_bytes])
            assert bytes(engine.buffers[slot]) == row


def test_an_error_of_a_reader_thread_reaches_the_caller(model, store, tokens, monkeypatch):
    with engine_of(store, 8, threads=3) as engine:

        def fail(row, buffer):
            raise UserError(f"cannot read expert row {row}")

        monkeypatch.setattr(engine.reader, "read", fail)
        engine.start(new_caches("lru", [], 8, 2))
        with pytest.raises(UserError, match="cannot read expert row"), offloaded(model, engine, store.layout):
            decode(model, tokens, PROMPT, engine.account)
    assert torch.equal(decode_offloaded(model, store, tokens, 4).logits, decode_resident(model, tokens).logits)


def test_a_store_that_is_cut_while_it_is_read_is_refused(model, store, tokens):
    with engine_of(store, 4) as engine:
        engine.start(new_caches("lru", [], 4, 2))
        with store.path.open("r+b") as file:
            file.truncate(store.num_bytes // 2)
        with pytest.raises(UserError, match="cut meanwhile"), offloaded(model, engine, store.layout):
            decode(model, tokens, PROMPT, engine.account)


def test_the_pages_of_slots_are_there_before_anything_is_timed(store):
    """4 KiB pages of a fresh mapping cost more to find than to fill."""
    with engine_of(store, 1000) as engine:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.frombuffer(engine.memory, np.uint8)[:] = 1
        assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 500
