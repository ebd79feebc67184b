"""One MoE layer of the paper's 1.43B baseline on a CPU: forward and backward as a share of the GEMM peak.

python benchmarks/moe_layer.py
"""

import os
import statistics
import time

import torch
from configured import model_config
from train_step import gemm_peak

from moe_toy.model.allocator import keep_freed_memory
from moe_toy.model.initial_values import init_matrices
from moe_toy.model.moe import MoELayer

TOKENS, RUNS = 2048, 5
SHAPE = ("experiment=paper", "model.activation_checkpointing=false")


def main() -> None:
    keep_freed_memory()
    threads = len(os.sched_getaffinity(0))
    config = model_config(*SHAPE)
    torch.manual_seed(0)
    layer = MoELayer(config)
    init_matrices(layer, config.init_std, seed=0)
    x = torch.randn(1, TOKENS, config.hidden_size, requires_grad=True)
    cotangent = torch.randn_like(x)
    torch.set_num_threads(threads)
    times = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        layer.zero_grad()
        layer(x)[0].backward(cotangent)
        times.append(time.perf_counter() - start)
    seconds, peak = statistics.median(times[1:]), gemm_peak(threads, bf16=False)
    parameters = 3 * config.hidden_size * config.expert_hidden_size * config.moe.top_k
    share = 2 * 3 * TOKENS * (parameters + config.hidden_size * config.moe.num_experts) / seconds / peak
    print(f"{TOKENS} tokens, {threads} threads: {seconds * 1e3:.0f} ms, {share:.0%} of {peak / 1e9:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
