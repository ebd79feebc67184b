"""Experts that a guess names are read ahead, and neither the cache nor what is computed changes by that."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from moe_toy.errors import UserError
from moe_toy.offload.ahead import Ahead
from moe_toy.offload.cache import ExpertCache, lookups_of, new_caches, simulate
from moe_toy.offload.decode import COLUMNS, decode
from moe_toy.offload.experts import offloaded
from moe_toy.offload.policies import Lru
from moe_toy.offload.store import write_store
from tests.offload.conftest import PROMPT, bytes_from_disk, decode_offloaded, decode_resident, engine_of

READS, GUESSED, HITS = (COLUMNS.index(name) for name in ("reads", "speculative_reads", "speculative_hits"))
AHEAD = 2


@pytest.mark.parametrize("policy", ["lru", "lfu", "belady", "random"])
@pytest.mark.parametrize("cached", [2, 5, 16])
def test_nothing_changes_but_when_bytes_come(model, store, tokens, policy, cached):
    threads = 1 + cached % 2
    decoded = decode_offloaded(model, store, tokens, cached + AHEAD, policy, threads=threads, ahead=AHEAD)
    assert torch.equal(decoded.logits, decode_resident(model, tokens).logits)
    lookups = lookups_of(decoded.expert_ids, store.layout.num_experts, PROMPT)
    misses = simulate(policy, lookups, cached, 2).reshape(-1, 2).sum(1)
    costs = decoded.costs
    assert (costs[:, READS] + costs[:, HITS]).tolist() == misses.tolist()
    assert costs[0, GUESSED] == 0
    assert (costs[:, HITS] <= costs[:, GUESSED]).all()
    assert cached == 16 or costs[:, HITS].any()


def test_shares_of_layers_keep_their_size(model, store, tokens):
    decoded = decode_offloaded(model, store, tokens, 2 * 3 + AHEAD, scope="layer", ahead=AHEAD)
    lookups = lookups_of(decoded.expert_ids, store.layout.num_experts, PROMPT)
    misses = simulate("lru", lookups, 2 * 3, 2, "layer").reshape(-1, 2).sum(1)
    assert (decoded.costs[:, READS] + decoded.costs[:, HITS]).tolist() == misses.tolist()
    assert torch.equal(decoded.logits, decode_resident(model, tokens).logits)


@pytest.mark.parametrize("changes", [{"moe_layer_period": 2, "num_layers": 4, "dense_ffn": "slim"}, {"num_layers": 3}])
def test_the_next_layer_is_guessed_by_its_router(make_model, tokens, tmp_path, monkeypatch, changes):
    model = make_model(**changes)
    store = write_store(model, tmp_path / "experts.bin", "float32")
    layers = [block.ffn for block in model.blocks if block.is_moe]
    inputs, guesses = {}, {}

    def note(router, given):
        inputs.setdefault(layers.index(next(layer for layer in layers if layer.router is router)), given[0])

    with engine_of(store, 8, ahead=AHEAD) as engine, offloaded(model, engine, store.layout):
        engine.start(new_caches("lru", [], 6, len(layers)))
        caches = model.new_caches(1, PROMPT + 1)
        model.extend(tokens[None, :PROMPT], caches)
        for layer in layers:
            layer.router.register_forward_pre_hook(note)
        monkeypatch.setattr(engine, "guess", lambda layer, choose: guesses.update({layer: choose()}))
        model.extend(tokens[None, PROMPT : PROMPT + 1], caches)
    assert list(guesses) == list(range(1, len(layers)))
    first = store.layout.num_experts
    expected = layers[1].router(inputs[0], model.balancer.selection_bias[1]).expert_ids.flatten() + first
    assert guesses[1] == expected.tolist()


def test_bytes_read_are_those_of_misses_and_guesses(model, store, tokens):
    gc.collect()
    before = bytes_from_disk()
    decoded = decode_offloaded(model, store, tokens, 3 + AHEAD, kind="disk", threads=2, ahead=AHEAD)
    reads = decoded.costs[:, READS].sum() + decoded.costs[:, GUESSED].sum()
    assert bytes_from_disk() - before == reads * store.layout.row_bytes > 0


class Stopped:
    """Reads that go on when they are told to."""

    def __init__(self) -> None:
        self.go_on, self.done = threading.Event(), []

    def read(self, item: int, slot: int) -> None:
        self.go_on.wait(10)
        self.done.append((item, slot))


def test_a_wrong_guess_is_called_off_or_left_alone():
    ahead, reads = Ahead([7, 8, 9]), Stopped()
    with ThreadPoolExecutor(1) as pool:
        assert ahead.begin([1, 2, 3, 4], reads.read, pool) == 3
        while not ahead.guessed[1].future.running():
            pass
        taken, called_off = ahead.take([5, 2])
        assert (list(taken), taken[2].slot, called_off) == ([2], 8, 1)
        assert len(ahead.free) == 1
        assert ahead.begin([4, 6], reads.read, pool) == 1  # the slot of 1 is being written
        reads.go_on.set()
        ahead.finish()
    assert [item for item, _ in reads.done][:2] == [1, 2]
    assert sorted(ahead.free) == [7, 9]


def test_an_error_of_a_guess_reaches_the_caller(model, store, tokens, monkeypatch):
    with engine_of(store, 8, ahead=AHEAD) as engine, offloaded(model, engine, store.layout):
        engine.start(new_caches("lru", [], 6, 2))
        read, main = engine.reader.read, threading.get_ident()

        def fail(row, buffer):
            if threading.get_ident() != main:
                raise UserError(f"cannot read expert row {row}")
            read(row, buffer)

        monkeypatch.setattr(engine.reader, "read", fail)
        with pytest.raises(UserError, match="cannot read expert row"):
            decode(model, tokens, PROMPT, engine.account)


def test_a_cache_that_changed_places_evicts_as_before():
    cache = ExpertCache(2, Lru())
    cache.look_up([4, 5])
    cache.move(4, 9)
    assert cache.holds(4)
    assert [tuple(step) for step in cache.look_up([6])] == [(6, 9, True)]
