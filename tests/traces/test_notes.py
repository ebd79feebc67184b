from dataclasses import replace

import torch

from moe_toy.routing import RoutingTrace
from moe_toy.traces.notes import notes_on

KNOWN = RoutingTrace(
    expert_ids=torch.zeros(1, 1, 4, 1, dtype=torch.int64),
    token_ids=torch.zeros(1, 4, dtype=torch.int64),
    num_experts=2,
    layer_ids=(0,),
)


def test_what_is_complete_needs_no_words():
    assert notes_on(KNOWN, {4: 8}, [16]) == []


def test_tokens_too_short_for_a_segment_are_counted():
    notes = notes_on(KNOWN, {4: 8, 20: 40}, [4, 16, 64])
    assert notes == [
        "Sequences have 4 to 20 tokens.",
        "8 of 48 tokens lie in sequences shorter than a segment of 16.",
        "48 of 48 tokens lie in sequences shorter than a segment of 64.",
    ]


def test_what_is_unknown_is_said():
    assert "Token ids are unknown" in notes_on(replace(KNOWN, token_ids=None), {4: 4}, [])[0]
    assert "no order of rank" in notes_on(replace(KNOWN, ordered=False), {4: 4}, [])[0]
    assert "different numbers of experts" in notes_on(replace(KNOWN, padded=True), {4: 4}, [])[0]
    assert "prompts warm" in notes_on(replace(KNOWN, prompt_lengths=torch.tensor([1])), {4: 4}, [])[0]
