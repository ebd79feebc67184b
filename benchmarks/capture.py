"""What it costs to record routing: time of a forward pass with capture, relative to the same pass without.

    python benchmarks/capture.py

Each model reads blocks of 512 tokens. Plain and captured passes take turns; the fastest of each counts, in time of the
processor, so that other work on the machine does not. Goal: at most 3 %. "With loss" adds the predicted tokens
and their losses, which an evaluation also takes.
"""

import time
from collections.abc import Callable

import torch
from configured import model_config
from transformers import AutoModelForCausalLM, DeepseekV3Config, MixtralConfig, OlmoeConfig

from moe_toy.balance.base import LoadBalancer
from moe_toy.evaluation.capture import compact
from moe_toy.evaluation.checkpoint import LoadedCheckpoint
from moe_toy.evaluation.pretrained_model import PretrainedModel
from moe_toy.evaluation.router_hooks import family_of
from moe_toy.model.transformer import MoETransformer

BATCH, SEQ, VOCAB, RUNS = 4, 512, 4096, 15
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": SEQ,
    "num_experts_per_tok": 8,
}
PRETRAINED = {
    "OLMoE, 8 of 64": OlmoeConfig(**SIZES, intermediate_size=64, num_experts=64),
    "Mixtral, 8 of 32": MixtralConfig(**SIZES, intermediate_size=128, num_local_experts=32),
    "DeepSeek-V3, 8 of 64": DeepseekV3Config(
        **SIZES,
        intermediate_size=512,
        moe_intermediate_size=64,
        n_routed_experts=64,
        n_shared_experts=1,
        first_k_dense_replace=1,
        kv_lora_rank=32,
        q_lora_rank=None,
        qk_nope_head_dim=32,
        qk_rope_head_dim=32,
        v_head_dim=64,
        n_group=8,
        topk_group=4,
    ),
}


def nano() -> MoETransformer:
    config = model_config("model=nano", "moe.z_loss_coefficient=0.0", f"model.max_seq_len={SEQ}")
    return MoETransformer(config, LoadBalancer(num_layers=4, num_experts=64)).eval()


def fastest(*works: Callable[[], object]) -> list[float]:
    """Of each, in ms; they take turns."""
    times = [[] for _ in works]
    for run in range(RUNS + 2):
        for work, taken in zip(works, times, strict=True):
            start = time.process_time()
            work()
            if run >= 2:
                taken.append((time.process_time() - start) * 1e3)
    return [min(taken) for taken in times]


def report(name: str, plain: Callable[[], object], captured: Callable[[], object], whole: Callable[[], object]) -> None:
    without, with_capture, with_loss = fastest(plain, captured, whole)
    print(f"{name:24}{without:10.1f}{with_capture / without - 1:12.1%}{with_loss / without - 1:16.1%}")


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)
    token_ids = torch.randint(VOCAB, (BATCH, SEQ))
    print(f"{'':24}{'plain (ms)':>10}{'capture':>12}{'with loss':>16}")
    model = nano()
    subject = LoadedCheckpoint(model)
    report(
        "nano, 8 of 64",
        lambda: model(token_ids),
        lambda: compact(model(token_ids).trace),
        lambda: compact(subject.observe(token_ids).trace),
    )
    for name, config in PRETRAINED.items():
        plain = AutoModelForCausalLM.from_config(config).eval()
        watched = PretrainedModel(AutoModelForCausalLM.from_config(config).eval(), family_of(config.model_type))

        def capture(watched: PretrainedModel = watched) -> None:
            with watched.hooks.watching():
                watched.model(input_ids=token_ids, use_cache=False)
            compact(watched.trace(token_ids))

        report(
            name,
            lambda plain=plain: plain(input_ids=token_ids, use_cache=False),
            capture,
            lambda watched=watched: compact(watched.observe(token_ids).trace),
        )


if __name__ == "__main__":
    main()
