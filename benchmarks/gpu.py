"""Speed, memory and shares of a training step of the 1.43B models on one GPU: one JSON file, one Markdown table.

    python benchmarks/gpu.py [--out gpu-benchmark] [--minutes 6]      # rows that no time is left for are left out
    python benchmarks/gpu.py --device cpu --tiny                      # the same code at toy size

A step is forward, next-token cross-entropy, balance and z-loss, backward, clipping and fused AdamW on random tokens, in
bf16-mixed with fp32 weights, as `trainer=gpu model=olmoe_1b4` trains; transformers' OLMoE, where installed, has bf16
weights, as its users have. Needs no network. Works with torch 2.11 and newer.
"""

import argparse
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from configured import configured, model_config
from gpu_report import Row, installed, line_of, markdown, time_of_recipe
from hydra.utils import instantiate

from moe_toy.model.compiled_blocks import compile_blocks
from moe_toy.model.config import ModelConfig
from moe_toy.model.transformer import MoETransformer

PAPER = ["experiment=paper"]
TINY = ["model=nano", "data.vocab_size=256", "model.hidden_size=32", "model.ffn_budget=1024", "model.num_layers=2"]
SHARES = {  # by what the names of kernels and operations contain
    "experts": ("grouped", "embedding_bag", "EmbeddingBag"),
    "attention": ("flash", "scaled_dot_product", "fmha", "softmax_warp"),
    "optimiser": ("adam", "Adam", "multi_tensor", "lpnorm"),
    "dense products": ("gemm", "nvjet", "cutlass", "aten::mm", "aten::addmm"),
}
OUR_STEPS = (  # share of the rows that matter most first: (arm, sequences, recompute, compiled)
    ("baseline", 8, False, True),
    ("baseline", 8, False, False),
    ("baseline", 8, True, True),
    ("baseline", 2, False, True),
    ("baseline", 16, False, True),
    ("baseline", 8, True, False),
    ("share1", 8, False, True),
    ("share1", 8, False, False),
)
BEFORE_PEERS = 4
"""So many of them come first: a short benchmark must not end without the peers."""
PEER_STEPS = (False, True)
"""Compiled or not."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--out", type=Path, default=Path("gpu-benchmark"))
    arguments = parser.parse_args()
    bench = Bench(torch.device(arguments.device), arguments.tiny, arguments.steps, arguments.minutes * 60)
    result = bench.run()
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "gpu.json").write_text(json.dumps(result, indent=2) + "\n")
    text = markdown(result)
    (arguments.out / "gpu.md").write_text(text)
    print(text)


class Bench:
    def __init__(self, device: torch.device, tiny: bool, steps: int, seconds: float) -> None:
        self.device, self.tiny, self.steps, self.seconds = device, tiny, steps, seconds
        self.seq = 64 if tiny else 4096
        self.started = time.perf_counter()

    def run(self) -> dict[str, Any]:
        self.gemm = gemm_peak(self.device, 256 if self.tiny else 8192)
        rows = [self.ours(*case) for case in OUR_STEPS[:BEFORE_PEERS] if self.has_time()]
        rows += [self.theirs(compiled) for compiled in PEER_STEPS if self.has_time() and installed("transformers")]
        rows += [self.ours(*case) for case in OUR_STEPS[BEFORE_PEERS:] if self.has_time()]
        shares = self.shares() if self.has_time() else {}
        return {
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else platform.processor() or "cpu",
            "versions": {name: installed(name) for name in ("torch", "triton", "transformers", "lightning")},
            "cuda": torch.version.cuda,
            "gemm_peak_tflops": self.gemm / 1e12,
            "rows": [asdict(row) for row in rows],
            "shares_of_a_step": shares,
            "days_to_10000_steps": time_of_recipe(rows),
            "seconds": time.perf_counter() - self.started,
        }

    def has_time(self) -> bool:
        return time.perf_counter() - self.started < 0.85 * self.seconds

    def ours(self, arm: str, sequences: int, recompute: bool, compiled: bool) -> Row:
        row = Row(f"moe_toy {arm}", sequences * self.seq, recompute, compiled)
        config = self.config(arm)

        def build() -> Callable[[], None]:
            return self.our_step(arm, sequences, recompute, compiled)

        return self.timed(row, build, config)

    def config(self, arm: str) -> ModelConfig:
        return model_config(*self.overrides(arm))

    def overrides(self, arm: str) -> list[str]:
        return [*PAPER, f"arm={arm}", *(TINY if self.tiny else []), "run_dir=nowhere", "name=benchmark"]

    def our_step(self, arm: str, sequences: int, recompute: bool, compiled: bool) -> Callable[[], None]:
        config = replace(self.config(arm), activation_checkpointing=recompute)
        torch.manual_seed(0)
        sizes = {"num_layers": len(config.moe_layers), "num_experts": config.moe.num_experts}
        with self.device:
            model = MoETransformer(config, instantiate(configured(*self.overrides(arm)).balance, **sizes)).train()
        if compiled:
            model.loss_compiler = "aot_eager" if self.tiny else "inductor"
            compile_blocks(model.blocks, model.loss_compiler)

        def loss(tokens: torch.Tensor) -> torch.Tensor:
            output = model(tokens, only_loss=True, with_trace=False)
            return output.loss + output.aux_loss

        def end() -> None:
            model.balancer.after_optimizer_step()
            if compiled and model.blocks[0].forward.failures:  # they run on uncompiled, which is another row
                raise RuntimeError(f"compiling failed: {model.blocks[0].forward.failures[0]}")

        return self.step_of(model, loss, sequences, config.vocab_size, torch.bfloat16, end)

    def theirs(self, compiled: bool) -> Row:
        import peer_olmoe

        row = Row("transformers, bf16 weights, grouped_mm", 8 * self.seq, False, compiled)
        config = self.config("baseline")

        def build() -> Callable[[], None]:
            with self.device:
                model = peer_olmoe.build(config, "grouped_mm").to(torch.bfloat16)
            called = torch.compile(model, backend="aot_eager" if self.tiny else "inductor") if compiled else model
            return self.step_of(model, lambda tokens: peer_olmoe.loss(called, tokens), 8, config.vocab_size, None)

        return self.timed(row, build, config)

    def step_of(  # noqa: PLR0917
        self,
        model: torch.nn.Module,
        loss: Callable[[torch.Tensor], torch.Tensor],
        sequences: int,
        vocab_size: int,
        autocast: torch.dtype | None,
        end: Callable[[], None] = lambda: None,
    ) -> Callable[[], None]:
        parameters = list(model.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=4e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
        tokens = torch.randint(vocab_size, (sequences, self.seq), device=self.device)

        def step() -> None:
            with torch.autocast(self.device.type, autocast) if autocast else nullcontext():
                value = loss(tokens)
            value.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            end()

        return step

    def timed(self, row: Row, build: Callable[[], Callable[[], None]], config: ModelConfig) -> Row:
        """A row that fails, for want of memory for one, says so and leaves the others alone."""
        self.forget()
        try:
            step = build()
            first = self.clock(step)
            self.clock(step)
            seconds = statistics.median(self.clock(step) for _ in range(self.steps))
        except Exception as error:
            print(f"{row.name}: {error}")
            return replace(row, failed=f"{type(error).__name__}: {str(error).partition(chr(10))[0][:120]}")
        speed = row.tokens / seconds
        peak = torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else None
        masked = 6 * config.num_layers * config.hidden_size * self.seq  # the half of attention that nobody computes
        of_peak = speed * (config.flops_per_token(self.seq) - masked) / self.gemm
        done = replace(row, ms=seconds * 1e3, tokens_per_s=speed, of_peak=of_peak, peak_gib=peak, first_step_s=first)
        print(line_of(asdict(done)), flush=True)
        return done

    def forget(self) -> None:
        torch._dynamo.reset()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def clock(self, step: Callable[[], None]) -> float:
        started = time.perf_counter()
        step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    def shares(self) -> dict[str, float]:
        """Shares of the time of kernels, of a step that runs as it is."""
        from torch.profiler import ProfilerActivity, profile

        self.forget()
        on_cuda = self.device.type == "cuda"
        step = self.our_step("baseline", 8, False, False)
        self.clock(step)
        activity = ProfilerActivity.CUDA if on_cuda else ProfilerActivity.CPU
        with profile(activities=[activity]) as profiled:
            self.clock(step)
        times: dict[str, float] = {}
        for event in profiled.key_averages():
            spent = event.self_device_time_total if on_cuda else event.self_cpu_time_total
            share = next((name for name, marks in SHARES.items() if any(m in event.key for m in marks)), "the rest")
            times[share] = times.get(share, 0.0) + spent
        return {name: spent / sum(times.values()) for name, spent in times.items()}


def gemm_peak(device: torch.device, size: int, runs: int = 10) -> float:
    """Floating-point operations per second of the best square product in bf16."""
    a, b = torch.randn(2, size, size, device=device, dtype=torch.bfloat16)
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return 2 * size**3 / min(times)


if __name__ == "__main__":
    main()
