"""Golden cases (see tests/golden/README.md), each as a trace in memory and as one read back from a file."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange

from moe_toy.routing import RoutingTrace

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = json.loads((GOLDEN / "manifest.json").read_text())["cases"]


@dataclass
class Golden:
    name: str
    trace: RoutingTrace
    num_domains: int
    srp_lengths: list[int]
    arrays: Any

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    @property
    def sizes(self) -> dict[str, int]:
        return {
            "num_layers": len(self.trace.layer_ids),
            "num_experts": self.trace.num_experts,
            "num_domains": self.num_domains,
        }


def load_golden(name: str) -> Golden:
    case = next(case for case in CASES if case["name"] == name)
    arrays = np.load(GOLDEN / case["file"])
    expert_ids = torch.from_numpy(arrays["in_topk"])
    layers, domains, samples = expert_ids.shape[:3]
    trace = RoutingTrace(
        expert_ids=rearrange(expert_ids, "layer domain sample seq k -> layer (domain sample) seq k"),
        token_ids=torch.from_numpy(arrays["in_tokens"].astype(np.int32)).flatten(0, 1),
        predicted_ids=torch.from_numpy(arrays["in_preds"].astype(np.int32)).flatten(0, 1),
        domain_ids=torch.arange(domains).repeat_interleave(samples),
        num_experts=case["experts"],
        layer_ids=tuple(range(layers)),
        vocab_size=case["vocab"],
        domains=tuple(f"domain{d}" for d in range(domains)),
    )
    return Golden(name, trace, domains, case["srp_seg_lengths"], arrays)


@pytest.fixture(scope="session", params=[case["name"] for case in CASES])
def golden(request: pytest.FixtureRequest) -> Golden:
    return load_golden(request.param)


@pytest.fixture(scope="session")
def golden_named():
    return load_golden


def random_trace(
    *, layers=2, batch=6, seq=40, k=2, num_experts=6, vocab_size=20, domains=3, seed=0, sticky=0.5
) -> RoutingTrace:
    """A token repeats the routing of the one before it with probability `sticky`."""
    generator = torch.Generator().manual_seed(seed)
    expert_ids = torch.rand(layers, batch, seq, num_experts, generator=generator).argsort(-1)[..., :k]
    repeats = torch.rand(batch, seq, generator=generator) < sticky
    for t in range(1, seq):
        expert_ids[:, repeats[:, t], t] = expert_ids[:, repeats[:, t], t - 1]
    return RoutingTrace(
        expert_ids=expert_ids,
        token_ids=torch.randint(vocab_size, (batch, seq), generator=generator),
        predicted_ids=torch.randint(vocab_size, (batch, seq), generator=generator),
        domain_ids=torch.randint(domains, (batch,), generator=generator),
        num_experts=num_experts,
        layer_ids=tuple(range(layers)),
        vocab_size=vocab_size,
    )


@pytest.fixture(scope="session")
def make_trace():
    return random_trace


def tokens_trace(tokens: list[tuple[int, ...]], num_experts: int) -> RoutingTrace:
    """One layer, one sequence."""
    expert_ids = torch.tensor(tokens)[None, None]
    return RoutingTrace(
        expert_ids=expert_ids,
        token_ids=torch.zeros(1, len(tokens), dtype=torch.int64),
        num_experts=num_experts,
        layer_ids=(0,),
    )


@pytest.fixture(scope="session")
def trace_of():
    return tokens_trace
