"""What makes a run of train.py take seconds, and two domains of random words to train it on."""

import random
from pathlib import Path

SMALL = [
    "data=files",
    "data.vocab_size=300",
    "data.tokenizer_sample_bytes=20000",
    "data.sequence_length=32",
    "data.batch_size=4",
    "data.validation_length=64",
    "data.validation_samples=2",
    "model.hidden_size=32",
    "model.num_layers=2",
    "model.ffn_budget=128",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "optimizer.warmup_steps=2",
    "threads=1",
]
EIGHT_EXPERTS = ["moe.num_experts=8", "moe.top_k=2"]
WORDS = {
    "fruit": ["apple", "pear", "plum", "cherry", "grape", "melon", "peach", "fig"],
    "numbers": ["one", "two", "three", "four", "five", "six", "seven", "eight"],
}


def write_texts(folder: Path) -> None:
    for domain, words in WORDS.items():
        draw = random.Random(domain)
        documents = [" ".join(draw.choices(words, k=120)) for _ in range(60)]
        (folder / f"{domain}.jsonl").write_text("".join(f'{{"text": "{text}"}}\n' for text in documents))
