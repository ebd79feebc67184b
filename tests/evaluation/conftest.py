"""Tiny random models of every family, a tokenizer and a text for them. Nothing is downloaded."""

import random

import pytest
import torch

from moe_toy.data.domains import FileDomains
from moe_toy.data.tokenizer import train
from moe_toy.evaluation.samples import Samples, Text
from tests.small_run import WORDS

NUM_EXPERTS, TOP_K = 16, 2
SIZES = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "num_experts_per_tok": TOP_K,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LATENT_ATTENTION = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "moe_intermediate_size": 16,
    "n_routed_experts": NUM_EXPERTS,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}
SHARED = {"num_experts": NUM_EXPERTS, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
LINEAR = {f"linear_{name}": size for name, size in
          {"key_head_dim": 8, "value_head_dim": 8, "num_key_heads": 2, "num_value_heads": 4}.items()}  # fmt: skip
LOCAL = {"num_local_experts": NUM_EXPERTS}
JAMBA = {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1}
DECODERS = {  # config class, what differs, its MoE layers
    "olmoe": ("OlmoeConfig", {"num_experts": NUM_EXPERTS}, (0, 1)),
    "qwen3_moe": ("Qwen3MoeConfig", SHARED | {"head_dim": 8}, (0, 1)),
    "qwen2_moe": ("Qwen2MoeConfig", SHARED, (0, 1)),
    "mixtral": ("MixtralConfig", LOCAL, (0, 1)),
    "phimoe": ("PhimoeConfig", LOCAL, (0, 1)),
    "granitemoe": ("GraniteMoeConfig", LOCAL, (0, 1)),
    "jamba": ("JambaConfig", JAMBA | {"num_experts": NUM_EXPERTS, "mamba_d_state": 4, "mamba_dt_rank": 4}, (1,)),
    "deepseek_v2": ("DeepseekV2Config", LATENT_ATTENTION | {"head_dim": 8}, (1,)),
    "deepseek_v3": ("DeepseekV3Config", LATENT_ATTENTION | {"n_group": 2, "topk_group": 1}, (1,)),
    "jetmoe": ("JetMoeConfig", LOCAL | {"kv_channels": 8}, (0, 1)),
    "gpt_oss": ("GptOssConfig", LOCAL | {"head_dim": 8}, (0, 1)),
    "qwen3_next": (
        "Qwen3NextConfig",
        SHARED | LINEAR | {"head_dim": 8, "layer_types": ["linear_attention", "full_attention"]},
        (0, 1),
    ),
}
SWITCH = {
    "vocab_size": 420,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 16,
    "num_heads": 4,
    "num_layers": 2,
    "num_sparse_encoder_layers": 1,
    "num_sparse_decoder_layers": 1,
    "num_experts": NUM_EXPERTS,
}
NLLB = {
    "vocab_size": 320,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "encoder_sparse_step": 2,
    "decoder_sparse_step": 2,
    "num_experts": NUM_EXPERTS,
    "max_position_embeddings": 128,
}
BOTH_SIDES = {"switch_transformers": ("SwitchTransformersConfig", SWITCH), "nllb_moe": ("NllbMoeConfig", NLLB)}


def tiny_model(family: str, **changes):
    import transformers

    torch.manual_seed(0)
    if family in BOTH_SIDES:
        config, sizes = BOTH_SIDES[family]
        auto = transformers.AutoModelForSeq2SeqLM
    else:
        config, different, _ = DECODERS[family]
        sizes, auto = SIZES | different, transformers.AutoModelForCausalLM
    return auto.from_config(getattr(transformers, config)(**{**sizes, **changes})).eval()


@pytest.fixture
def texts(tmp_path):
    """Two domains of random words, all of them validation text."""
    for domain, words in WORDS.items():
        for split in ("train", "validation"):
            folder = tmp_path / "texts" / split
            folder.mkdir(parents=True, exist_ok=True)
            draw = random.Random(domain + split)
            (folder / f"{domain}.txt").write_text("\n\n".join(" ".join(draw.choices(words, k=60)) for _ in range(40)))
    return tmp_path / "texts"


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory):
    """300 tokens."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    text = " ".join(word for words in WORDS.values() for word in words)
    train([text] * 3, vocab_size=300).backend.save(str(path))
    return path


@pytest.fixture
def samples(texts, tokenizer_file, tmp_path):
    source = FileDomains(path=texts, validation_fraction=0.5, max_characters=1000)
    made = Samples(Text(source, tmp_path / "cache", validation_samples=3, validation_length=32), tokenizer_file)
    made.prepare()
    return made
