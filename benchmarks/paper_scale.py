"""Time and memory of the paper's whole analysis of one toy model, on a synthetic trace.

    python benchmarks/paper_scale.py [--samples 2048] [--threads 2]

8 layers, 64 experts, top 8; 11 domains of 2048 sequences of 512 tokens; segments of 4, 16, 64 and 256 tokens; every
16th sequence for the caches; 1000 resamples at model and layer level. Goal: under 3 minutes on two cores and 4 GiB.
"""

import argparse
import os
import resource
import time
from collections.abc import Iterator

import torch

from moe_toy.metrics import analyze
from moe_toy.routing import RoutingTrace

LAYERS, EXPERTS, TOP_K, SEQ, DOMAINS, VOCAB = 8, 64, 8, 512, 11, 50_304


def traces(samples: int, making: list[float]) -> Iterator[RoutingTrace]:
    """One trace of up to 256 sequences of one domain at a time: each domain has favourites, each token may repeat the
    experts of the one before. Notes the time it takes to make them."""
    generator = torch.Generator().manual_seed(0)
    favour = 0.5 * torch.randn(DOMAINS, LAYERS, 1, 1, EXPERTS, generator=generator)
    for domain in range(DOMAINS):
        for batch in [256] * (samples // 256) + ([samples % 256] if samples % 256 else []):
            start = time.perf_counter()
            noise = torch.rand(LAYERS, batch, SEQ, EXPERTS, generator=generator)
            expert_ids = (noise + favour[domain]).topk(TOP_K).indices.to(torch.uint8)
            repeats = torch.rand(batch, SEQ, generator=generator) < 0.5
            for t in range(1, SEQ):
                expert_ids[:, repeats[:, t], t] = expert_ids[:, repeats[:, t], t - 1]
            token_ids = torch.randint(VOCAB, (batch, SEQ), generator=generator)
            trace = RoutingTrace(
                expert_ids=expert_ids,
                token_ids=token_ids,
                predicted_ids=token_ids.roll(-1, 1),
                domain_ids=torch.full((batch,), domain),
                num_experts=EXPERTS,
                layer_ids=tuple(range(LAYERS)),
                vocab_size=VOCAB,
            )
            making.append(time.perf_counter() - start)
            yield trace


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=2048, help="sequences per domain")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    making: list[float] = []
    start = time.perf_counter()
    tables = analyze(traces(options.samples, making), intervals=True)
    seconds = time.perf_counter() - start - sum(making)
    print({name: len(table) for name, table in tables.items()})
    print(f"analysis {seconds:.0f} s (making the trace, left out: {sum(making):.0f} s), {options.threads} threads")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
