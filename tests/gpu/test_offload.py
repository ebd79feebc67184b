"""Decoding with slots in the memory of a GPU, filled from pinned memory."""

import pytest
import torch

from moe_toy.offload.measure import multiply_one_by_one
from moe_toy.offload.store import write_store
from tests.offload.conftest import decode_offloaded, decode_resident, make_model, tokens  # noqa: F401

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("ahead", [0, 2])
def test_logits_are_those_of_the_resident_model(device, make_model, tokens, tmp_path, dtype, ahead):  # noqa: F811, PLR0917
    model = make_model().to(device, getattr(torch, dtype))
    multiply_one_by_one(model)
    store = write_store(model, tmp_path / "experts.bin", dtype)
    options = {"kind": "host", "threads": 2, "ahead": ahead, "device": device}
    decoded = decode_offloaded(model, store, tokens, 5, **options)
    assert torch.equal(decoded.logits, decode_resident(model, tokens).logits)
