"""The shapes at which training steps are timed: those of conf/model/, with the sequences of conf/data/."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StepShape:
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    ffn_budget: int
    batch_size: int
    num_experts: int = 64
    top_k: int = 8
    sequence_length: int = 512


SHAPES = {
    "nano": StepShape(4096, hidden_size=128, num_layers=4, num_heads=4, num_kv_heads=2, ffn_budget=2048, batch_size=8),
    "small": StepShape(8192, hidden_size=256, num_layers=4, num_heads=4, num_kv_heads=2, ffn_budget=4096, batch_size=4),
}
