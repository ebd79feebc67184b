"""What every metric promises: batches, ranks and processes only add."""

import os
import pickle
import subprocess
import sys
from dataclasses import fields, is_dataclass
from datetime import timedelta

import pytest
import torch
from torch import distributed, multiprocessing

from moe_toy.metrics import (
    SRP,
    CacheHitRate,
    CoActivation,
    DomainSpecialization,
    LoadBalance,
    PoissonResampler,
    PositionSRP,
    SRPBootstrap,
    VocabularySpecialization,
)

SIZES = {"num_layers": 2, "num_experts": 6}
METRICS = {
    "srp": lambda: SRP(**SIZES, num_domains=3, segment_length=5),
    "srp_bootstrap": lambda: SRPBootstrap(**SIZES, num_domains=3, resampler=PoissonResampler(50), experts=True),
    "sch": lambda: CacheHitRate(**SIZES, num_domains=3, top_k=2, resampler=PoissonResampler(50)),
    "lru_model": lambda: CacheHitRate(**SIZES, num_domains=3, top_k=2, policy="lru", scope="model"),
    "load_balance": lambda: LoadBalance(**SIZES, num_domains=3),
    "domain": lambda: DomainSpecialization(**SIZES, num_domains=3),
    "vocabulary": lambda: VocabularySpecialization(**SIZES, vocab_size=20, min_token_count=5),
    "coactivation": lambda: CoActivation(**SIZES),
    "positions": lambda: PositionSRP(**SIZES, num_domains=3, seq_len=40),
}


def tensors(result):
    """All tensors of a result, in order."""
    if isinstance(result, torch.Tensor):
        return [result]
    if is_dataclass(result):
        result = [getattr(result, field.name) for field in fields(result)]
    if isinstance(result, dict):
        result = list(result.values())
    return [] if result is None else [tensor for part in result for tensor in tensors(part)]


def assert_identical(left, right):
    assert len(tensors(left)) == len(tensors(right)) > 0
    for a, b in zip(tensors(left), tensors(right), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def score(metric, parts):
    for part in parts:
        metric.update(part)
    return metric.compute()


@pytest.mark.parametrize("make", METRICS.values(), ids=METRICS)
def test_batch_by_batch_equals_all_at_once(make_trace, make):
    trace = make_trace(batch=11)
    parts = [trace.select(part) for part in torch.randperm(11).split(3)]
    assert_identical(score(make(), parts), score(make(), [trace]))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16], ids=str)
@pytest.mark.parametrize("make", METRICS.values(), ids=METRICS)
def test_any_integer_type(make_trace, make, dtype):
    trace = make_trace()
    narrow = type(trace)(
        **{
            **vars(trace),
            "expert_ids": trace.expert_ids.to(dtype),
            "token_ids": trace.token_ids.int(),
            "domain_ids": trace.domain_ids.short(),
        }
    )
    assert_identical(score(make(), [narrow]), score(make(), [trace]))


@pytest.mark.parametrize("make", METRICS.values(), ids=METRICS)
def test_survives_pickling_and_reset(make_trace, make):
    metric = make()
    expected = score(metric, [make_trace()])
    copy = pickle.loads(pickle.dumps(metric))
    assert_identical(copy.compute(), expected)
    copy.reset()
    assert_identical(score(copy, [make_trace()]), expected)


def on_rank(rank, store, trace, folder):
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    results = {name: score(make(), [trace.select(torch.arange(rank, 11, 2))]) for name, make in METRICS.items()}
    torch.save(results, folder / f"{rank}.pt")
    distributed.destroy_process_group()


def test_two_ranks_equal_one_bit_for_bit(make_trace, tmp_path):
    trace = make_trace(batch=11)
    multiprocessing.spawn(on_rank, (tmp_path / "store", trace, tmp_path), nprocs=2)
    for rank in range(2):
        results = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        for name, make in METRICS.items():
            assert_identical(results[name], score(make(), [trace]))


def test_domain_out_of_range_is_refused(make_trace):
    metric = SRP(**SIZES, num_domains=2)
    with pytest.raises(ValueError, match=r"domain_ids 0\.\.2, but SRP was made for num_domains=2; raise num_domains"):
        metric.update(make_trace())


def test_domains_of_other_sequences_are_refused(make_trace):
    trace = make_trace()
    object.__setattr__(trace, "domain_ids", torch.tensor([0, 1]))  # past the checks of shapes, which only tests have
    with pytest.raises(ValueError, match=r"6 sequences, but domain_ids of shape \(2,\)"):
        SRP(**SIZES, num_domains=3).update(trace)


@pytest.mark.parametrize("make", METRICS.values(), ids=METRICS)
def test_experts_numbered_from_one_are_refused(make_trace, make):
    """Those of number num_experts would be taken for none."""
    trace = make_trace()
    with pytest.raises(ValueError, match=r"expert_ids range over 1\.\.6, but num_experts is 6"):
        make().update(type(trace)(**{**vars(trace), "expert_ids": trace.expert_ids + 1}))


COMPILE = """
import torch
from moe_toy.metrics import cache_hits
print(cache_hits(torch.tensor([[[[0], [1], [0], [2]]]]), 3, policy="sch")[0].tolist())
"""


def python(code, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    )


def test_two_processes_may_compile_at_once(tmp_path):
    started = [python(COMPILE, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in started] == ["[[[1, 3, 4]]]"] * 2
    assert list(tmp_path.rglob("*.nbi"))


def test_works_without_a_writable_cache_directory(tmp_path):
    without = "import numba.core.caching as c; c.CacheImpl._locator_classes = []\n" + COMPILE
    assert python(without).communicate()[0].strip() == "[[[1, 3, 4]]]"


def test_importing_metrics_is_light():
    # torchmetrics itself imports transformers where that is installed
    ours = (
        "import sys, torchmetrics; before = set(sys.modules); import moe_toy.metrics; new = set(sys.modules) - before"
    )
    code = f"{ours}; print({{'numba', 'pandas', 'lightning', 'transformers'}} & new)"
    assert python(code).communicate()[0].strip() == "set()"
