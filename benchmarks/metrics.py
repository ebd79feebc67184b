"""Speed of the metrics: ms per sequence (and layer) on one thread, and the ratio to a naive implementation.

    python benchmarks/metrics.py

A sequence has 512 tokens, a layer 64 experts of which a token takes 8; "uniform" routing draws them at random for
every token, "sticky" repeats the experts of the token before with probability 0.9. Each figure is the minimum and the
median of several runs, because a busy machine only ever adds time. Naive code is plain Python that follows the
definitions: one simulation per capacity (timed for every eighth capacity and scaled up), one pass per segment.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")

import statistics
import time
from collections import Counter
from collections.abc import Callable

import torch

from moe_toy.metrics import SRP, CacheHitRate, PoissonResampler, SRPBootstrap, cache_hits, segment_scores
from moe_toy.routing import RoutingTrace

EXPERTS, TOP_K, SEQ, LAYERS = 64, 8, 512, 8
SEGMENT_LENGTHS = (4, 16, 64, 256)
NAIVE_STEP = 8


def routing(layers: int, batch: int, repeat: float) -> RoutingTrace:
    generator = torch.Generator().manual_seed(0)
    expert_ids = torch.rand(layers, batch, SEQ, EXPERTS, generator=generator).argsort(-1)[..., :TOP_K]
    repeats = torch.rand(batch, SEQ, generator=generator) < repeat
    for t in range(1, SEQ):
        expert_ids[:, repeats[:, t], t] = expert_ids[:, repeats[:, t], t - 1]
    return RoutingTrace(
        expert_ids=expert_ids.to(torch.uint8),
        token_ids=torch.randint(1000, (batch, SEQ), generator=generator),
        num_experts=EXPERTS,
        layer_ids=tuple(range(layers)),
    )


def timed(work: Callable[[], object], per: int, runs: int = 9) -> tuple[float, float]:
    """Minimum and median, in ms per unit."""
    work()  # compiles
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3 / per)
    return min(times), statistics.median(times)


def naive_cache(tokens: list[list[int]], policy: str, segment_length: int) -> None:
    upcoming = [x for token in tokens for x in token]
    for capacity in range(NAIVE_STEP, EXPERTS + 1, NAIVE_STEP):
        cache, last, uses, hits, clock = set(), {}, {}, 0, 0
        for i, token in enumerate(tokens):
            hits += sum(x in cache for x in token)
            left = Counter(x for later in tokens[i : i + segment_length] for x in later)
            for x in token:
                if x not in cache and len(cache) == capacity:
                    if policy == "sch":
                        victim = min(cache, key=lambda y: (left[y], last[y]))
                    elif policy == "lru":
                        victim = min(cache, key=last.__getitem__)
                    elif policy == "lfu":
                        victim = min(cache, key=lambda y: (uses[y], last[y]))
                    else:
                        next_use = {}
                        for when, y in enumerate(upcoming[clock + 1 :]):
                            if next_use.setdefault(y, when) == when and len(next_use) == EXPERTS:
                                break
                        victim = max(cache, key=lambda y: next_use.get(y, len(upcoming)))
                    cache.remove(victim)
                cache.add(x)
                left[x] -= 1
                last[x], uses[x], clock = clock, uses.get(x, 0) + 1, clock + 1


def naive_srp(tokens: list[list[int]], segment_length: int) -> None:
    histogram = torch.zeros(segment_length + 1, dtype=torch.int64)
    for start in range(SEQ - segment_length + 1):
        uses = Counter(x for token in tokens[start : start + segment_length] for x in token)
        for expert in range(EXPERTS):
            histogram[uses[expert]] += 1
    segment_scores(histogram)


def report(name: str, figures: tuple[float, float], naive: float | None = None, goal: float | None = None) -> None:
    low, middle = figures
    ratio = "" if naive is None else f"{naive / low:8.0f} x"
    wanted = "" if goal is None else f"{goal:6.2f}"
    print(f"{name:34}{low:9.3f}{middle:9.3f}{wanted:>8}{ratio:>12}")


def caches(kind: str, repeat: float, goal: float) -> None:
    trace, whole = routing(1, 32, repeat), routing(LAYERS, 4, repeat)
    tokens = trace.expert_ids[0, 0].tolist()

    def one(policy: str, m: int, name: str) -> None:
        naive = timed(lambda: naive_cache(tokens, policy, m), 1, runs=1)[0] * NAIVE_STEP
        layer = timed(lambda: cache_hits(trace.expert_ids, EXPERTS, policy=policy, segment_length=m), 32)
        report(f"{kind} {name}, layer", layer, naive, goal)
        options = {"policy": policy, "segment_length": m, "scope": "model"}
        model = timed(lambda: cache_hits(whole.expert_ids, EXPERTS, **options), 4, runs=5)
        report(f"{kind} {name}, model of {LAYERS} layers", model, goal=3)

    for m in SEGMENT_LENGTHS:
        one("sch", m, f"sch@{m}")
    for policy in ("lru", "lfu", "belady"):
        one(policy, 1, policy)


def segments() -> None:
    trace = routing(LAYERS, 64, 0.5)
    sizes = {"num_layers": LAYERS, "num_experts": EXPERTS}
    tokens = trace.expert_ids[0, 0].tolist()
    naive = sum(timed(lambda m=m: naive_srp(tokens, m), 1, runs=1)[0] for m in SEGMENT_LENGTHS)
    metrics = [SRP(**sizes, segment_length=m) for m in SEGMENT_LENGTHS]
    report("SRP, four lengths", timed(lambda: [m.update(trace) for m in metrics], LAYERS * 64), naive, 0.3)
    draws = PoissonResampler(1000)
    metrics += [SRPBootstrap(**sizes, segment_length=m, resampler=draws) for m in SEGMENT_LENGTHS]
    both = timed(lambda: [m.update(trace) for m in metrics], LAYERS * 64, runs=5)
    report("SRP, four lengths, 1000 resamples", both, goal=0.9)
    cache = CacheHitRate(**sizes, top_k=TOP_K, resampler=draws)
    report("SCH@16, layer, 1000 resamples", timed(lambda: cache.update(trace), LAYERS * 64, runs=5))


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'ms per sequence (and layer)':34}{'min':>9}{'median':>9}{'goal':>8}{'vs naive':>12}")
    caches("uniform", 0.0, 0.2)
    caches("sticky", 0.9, 0.1)
    segments()


if __name__ == "__main__":
    main()
