"""Speed of a training step on a CPU, ours and those of transformers' OlmoeForCausalLM and of litgpt, where installed.

    python benchmarks/train_step.py [nano|small] [--pairs 5] [--steps 3] [--threads 2] [--processes 1] [--bf16]

A step is forward, next-token cross-entropy, backward, clipping and fused AdamW on random tokens: the same shape, batch,
threads, optimizer and clipping on each side, no balance loss. Each contender lives in a process of its own, as a user
would run it (ours sets the allocator as train.py does). They take turns, A B C A B C, and every ratio compares
neighbours, so that a machine that slows down slows both. With `--processes 2`, ours also runs in two processes at the
same time that share the threads, as arms of a sweep do; the line gives what they reach together. With `--bf16` every
contender runs under autocast. GEMM peak: the best of square products of that precision in the same run.
"""

import argparse
import importlib.util
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from multiprocessing.connection import Connection

from configured import configured, model_config

from moe_toy.model.config import ModelConfig

SHAPES = {"nano": [], "small": ["model=small", "data.vocab_size=8192", "data.batch_size=4"]}
AS_THE_PEER = ["moe.router=softmax_then_topk", "moe.normalize_weights=false", "moe.z_loss_coefficient=0.0"]
CONTENDERS = ("moe_toy", "grouped_mm", "eager", "litgpt")
GEMM_SIZE = 2048
PEERS = {"grouped_mm": "transformers, default (grouped_mm)", "eager": "transformers, eager experts", "litgpt": "litgpt"}
SIDE_BY_SIDE = "moe_toy, {} processes side by side"
Turn = tuple[float, float, float]
"""Seconds a step, of wall and of CPU time, and MB."""


@dataclass(frozen=True)
class StepShape:
    model: ModelConfig
    batch_size: int
    sequence_length: int
    bf16: bool = False


def step_shape(name: str, *, bf16: bool = False) -> StepShape:
    cfg = configured(*AS_THE_PEER, *SHAPES[name])
    return StepShape(model_config(*AS_THE_PEER, *SHAPES[name]), cfg.data.batch_size, cfg.data.sequence_length, bf16)


def make_step(contender: str, shape: StepShape) -> Callable[[], None]:
    import torch

    torch.manual_seed(0)
    if contender == "moe_toy":
        import our_step as side

        from moe_toy.model.allocator import keep_freed_memory

        keep_freed_memory()
        model = side.build(shape.model)
    elif contender == "litgpt":
        import peer_litgpt as side

        model = side.build(shape.model)
    else:
        import peer_olmoe as side

        model = side.build(shape.model, contender)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def step() -> None:
        token_ids = torch.randint(shape.model.vocab_size, (shape.batch_size, shape.sequence_length))
        with torch.autocast("cpu", torch.bfloat16, enabled=shape.bf16):
            loss = side.loss(model, token_ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def serve(pipe: Connection, contender: str, shape: StepShape, threads: int) -> None:
    """Answer each number of steps with their median seconds, of wall and of CPU time, and the peak memory in MB."""
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    import torch

    torch.set_num_threads(threads)
    step = make_step(contender, shape)
    while steps := pipe.recv():
        wall, cpu = [], []
        for _ in range(steps):
            start, cpu_start = time.perf_counter(), time.process_time()
            step()
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - cpu_start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        pipe.send((statistics.median(wall), statistics.median(cpu), peak))


def gemm_peak(threads: int, *, bf16: bool, runs: int = 5) -> float:
    """Floating-point operations per second."""
    import torch

    torch.set_num_threads(threads)
    a, b = torch.randn(2, GEMM_SIZE, GEMM_SIZE, dtype=torch.bfloat16 if bf16 else torch.float32)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * GEMM_SIZE**3 / min(times)


def gemm_operations(shape: StepShape) -> int:
    """Of the matrix products of one step: forward and twice that backward; attention scores not counted."""
    model = shape.model
    attention = 2 * model.hidden_size * (model.hidden_size + model.num_kv_heads * model.head_size)
    experts = 3 * model.hidden_size * model.expert_hidden_size * model.moe.top_k
    per_token = model.num_layers * (attention + experts + model.hidden_size * model.moe.num_experts)
    per_token += model.hidden_size * model.vocab_size
    return 2 * 3 * per_token * shape.batch_size * shape.sequence_length


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("shape", nargs="?", default="small", choices=SHAPES)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="steps per turn")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--contenders", nargs="*", default=CONTENDERS, choices=CONTENDERS)
    parser.add_argument("--processes", type=int, default=1, help="that train side by side, besides one alone")
    parser.add_argument("--bf16", action="store_true", help="under autocast instead of in fp32")
    arguments = parser.parse_args()
    shape = step_shape(arguments.shape, bf16=arguments.bf16)
    threads, processes = arguments.threads, arguments.processes
    context = multiprocessing.get_context("spawn")

    def start(contender: str, processes: int = 1) -> list[Connection]:
        pairs = [context.Pipe() for _ in range(processes)]
        for _, end in pairs:
            context.Process(target=serve, args=(end, contender, shape, max(1, threads // processes))).start()
        return [pipe for pipe, _ in pairs]

    groups = {contender: start(contender) for contender in arguments.contenders if is_here(contender)}
    if processes > 1:
        groups[SIDE_BY_SIDE.format(processes)] = start("moe_toy", processes)
    for pipes in groups.values():
        turn(pipes, 2)  # warm up
    peak = gemm_peak(threads, bf16=shape.bf16)
    turns = [{name: turn(pipes, arguments.steps) for name, pipes in groups.items()} for _ in range(arguments.pairs)]
    for pipe in chain.from_iterable(groups.values()):
        pipe.send(0)
    report(arguments.shape, shape, threads, turns, peak)


def is_here(contender: str) -> bool:
    if contender == "litgpt" and importlib.util.find_spec("litgpt") is None:
        print("litgpt is not installed, so it is left out (benchmarks/peer_litgpt.py tells how to)")
        return False
    return True


def turn(pipes: list[Connection], steps: int) -> Turn:
    """Of processes that run at the same time: seconds until they have done one more step together, mean CPU seconds of
    a step, and their memory together."""
    for pipe in pipes:
        pipe.send(steps)
    walls, cpus, peaks = zip(*(pipe.recv() for pipe in pipes), strict=True)
    return 1 / sum(1 / wall for wall in walls), statistics.mean(cpus), sum(peaks)


def report(name: str, shape: StepShape, threads: int, turns: list[dict[str, Turn]], peak: float) -> None:
    tokens = shape.batch_size * shape.sequence_length
    what = f"{name} in bf16" if shape.bf16 else name
    print(
        f"{what}: {tokens} tokens, {threads} threads, medians of {len(turns)} turns, GEMM peak {peak / 1e9:.0f} GFLOP/s"
    )
    print(f"{'':36}{'ms':>6}{'tokens/s':>10}{'of peak':>9}{'MB':>6}   ours is faster by (wall, CPU)")
    for contender in turns[0]:
        wall = statistics.median(turn[contender][0] for turn in turns)
        memory = max(turn[contender][2] for turn in turns)
        share = gemm_operations(shape) / wall / peak
        line = f"{PEERS.get(contender, contender):36}{wall * 1e3:6.0f}{tokens / wall:10.0f}{share:9.0%}{memory:6.0f}"
        if contender != "moe_toy" and "moe_toy" in turns[0]:
            ratios = [statistics.median(t[contender][i] / t["moe_toy"][i] for t in turns) for i in range(2)]
            faster = ", ".join(f"{ratio:.2f}x" for ratio in ratios)
            line += f"   {faster}" if contender in PEERS else f"   {1 / ratios[0]:.2f}x its tokens/s"
        print(line)


if __name__ == "__main__":
    main()
