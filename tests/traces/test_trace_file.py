"""Traces survive a round trip; damaged or inconsistent files are refused with the field and the position."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from moe_toy.errors import UserError
from moe_toy.routing import RoutingTrace
from moe_toy.traces.recording import Recording
from moe_toy.traces.trace_file import load_trace, save_trace


@pytest.fixture
def trace() -> RoutingTrace:
    generator = torch.Generator().manual_seed(0)
    return RoutingTrace(
        expert_ids=torch.rand(2, 3, 5, 6, generator=generator).argsort(-1)[..., :2],
        token_ids=torch.randint(9, (3, 5), generator=generator),
        predicted_ids=torch.randint(9, (3, 5), generator=generator),
        domain_ids=torch.tensor([0, 1, 1]),
        weights=torch.rand(2, 3, 5, 2, generator=generator),
        num_experts=6,
        layer_ids=(1, 3),
        vocab_size=9,
        domains=("code", "web"),
        source={"model": "toy", "revision": None},
    )


def test_round_trip(trace, tmp_path):
    save_trace(trace, tmp_path / "trace.safetensors")
    loaded = load_trace(tmp_path / "trace.safetensors")
    for name in ("expert_ids", "token_ids", "predicted_ids", "domain_ids"):
        assert torch.equal(getattr(loaded, name).long(), getattr(trace, name)), name
    assert torch.equal(loaded.weights, trace.weights.half())
    for name in ("num_experts", "layer_ids", "vocab_size", "domains", "source"):
        assert getattr(loaded, name) == getattr(trace, name), name
    assert [path.name for path in tmp_path.iterdir()] == ["trace.safetensors"]  # nothing half-written


def test_optional_fields_stay_absent(trace, tmp_path):
    bare = replace(trace, predicted_ids=None, domain_ids=None, weights=None, vocab_size=None, domains=(), source={})
    save_trace(bare, tmp_path / "trace")
    loaded = load_trace(tmp_path / "trace")
    assert (loaded.predicted_ids, loaded.domain_ids, loaded.weights, loaded.vocab_size) == (None,) * 4


def test_provenance_may_hold_what_json_does_not_know(trace, tmp_path):
    source = {"dtype": torch.bfloat16, "data": tmp_path, "loss": {"code": torch.tensor(0.5), "web": np.float32(0.25)}}
    save_trace(replace(trace, source=source), tmp_path / "trace")
    loaded = load_trace(tmp_path / "trace").source
    assert loaded == {"dtype": "torch.bfloat16", "data": str(tmp_path), "loss": {"code": 0.5, "web": 0.25}}


def test_one_name_without_domain_ids_is_that_of_all_sequences(trace, tmp_path):
    for domains, expected in ((("web",), "web"), ((), "trace")):
        save_trace(replace(trace, domain_ids=None, domains=domains), tmp_path / "trace.safetensors")
        (read,) = Recording([tmp_path / "trace.safetensors"])
        assert (read.domains, read.domain_ids.tolist()) == ((expected,), [0, 0, 0])


def test_domains_that_go_by_number_are_read_back_as_names(trace, tmp_path):
    save_trace(replace(trace, domains=(3, 5)), tmp_path / "trace")
    assert load_trace(tmp_path / "trace").domains == ("3", "5")


@pytest.mark.parametrize(("num_experts", "dtype"), [(256, torch.uint8), (257, torch.uint16)], ids=str)
def test_ids_are_stored_in_the_smallest_type(trace, tmp_path, num_experts, dtype):
    ids = trace.expert_ids.clone()
    ids[0, 0, 0, 0] = num_experts - 1
    save_trace(replace(trace, expert_ids=ids, num_experts=num_experts), tmp_path / "trace")
    loaded = load_trace(tmp_path / "trace").expert_ids
    assert loaded.dtype == dtype
    assert torch.equal(loaded.long(), ids)


def with_expert(trace, value):
    ids = trace.expert_ids.clone()
    ids[1, 2, 4, 1] = value if value is not None else ids[1, 2, 4, 0]
    return replace(trace, expert_ids=ids)


def with_token(trace, value):
    ids = trace.token_ids.clone()
    ids[2, 3] = value
    return replace(trace, token_ids=ids)


INCONSISTENT = {
    "expert out of range": (
        lambda trace: with_expert(trace, 6),
        r"'expert_ids' holds 6 at layer 1, batch 2, seq 4, k 1, which is not below num_experts \(6\)",
    ),
    "expert twice": (
        lambda trace: with_expert(trace, None),
        r"'expert_ids' names expert \d twice at layer 1, batch 2, seq 4",
    ),
    "token out of range": (
        lambda trace: with_token(trace, 9),
        r"'token_ids' holds 9 at batch 2, seq 3, which is not below vocab_size \(9\)",
    ),
    "negative token": (
        lambda trace: with_token(trace, -1),
        "'token_ids' holds -1 at batch 2, seq 3, which must not be negative",
    ),
    "unnamed domain": (
        lambda trace: replace(trace, domain_ids=torch.tensor([0, 2, 1])),
        "'domain_ids' holds 2 at batch 1, which is not below the number of 'domains'",
    ),
    "domains of no sequence": (
        lambda trace: replace(trace, domain_ids=None),
        "'domains' names 2, but 'domain_ids' is absent",
    ),
    "layers": (
        lambda trace: replace(trace, layer_ids=(1,)),
        "'layer_ids' names 1 layers, but 'expert_ids' has 2",
    ),
    "sizes of other layers": (
        lambda trace: replace(trace, expert_bytes=(4096,)),
        "'expert_bytes' names 1 layers, but 'expert_ids' has 2",
    ),
    "more experts per token than experts": (
        lambda trace: replace(trace, num_experts=1),
        "'expert_ids' has 2 experts per token, but num_experts is 1",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), INCONSISTENT.values(), ids=INCONSISTENT)
def test_inconsistent_trace_is_not_saved(trace, tmp_path, spoil, message):
    with pytest.raises(UserError, match=message):
        save_trace(spoil(trace), tmp_path / "trace")
    assert list(tmp_path.iterdir()) == []


def rewritten(path, tensors=None, **metadata):
    """The saved file with some parts replaced; None removes a part."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        fields = file.metadata() | metadata
    parts = load_file(path) | (tensors or {})
    save_file(
        {name: part for name, part in parts.items() if part is not None},
        path,
        {name: field for name, field in fields.items() if field is not None},
    )


DAMAGED = {
    "format": ({"format": "other/2"}, "metadata 'format' is 'other/2', but this version reads"),
    "no format": ({"format": None}, "metadata 'format' is None"),
    "num_experts": ({"num_experts": "six"}, "metadata 'num_experts' is 'six', but: Invalid JSON"),
    "no num_experts": ({"num_experts": None}, "metadata 'num_experts' is 'absent', but: Field required"),
    "layer_ids": ({"layer_ids": "{}"}, "metadata 'layer_ids' is '{}', but: Input should be a valid tuple"),
    "layers by name": ({"layer_ids": '["x", "y"]'}, r"metadata 'layer_ids' \(0\) is .*valid integer"),
    "no experts": ({"num_experts": "0"}, "metadata 'num_experts' is '0', but: Input should be greater than 0"),
    "true experts": ({"num_experts": "true"}, "metadata 'num_experts' is 'true', but: Input should be a valid integer"),
    "10^8 experts": (
        {"num_experts": "100000000"},
        "'num_experts' counts 100000000, more than the 65536",
    ),
    "5000 digits": ({"vocab_size": "9" * 5000}, "metadata 'vocab_size' is '9999"),
    "2^40 tokens": ({"vocab_size": str(2**40)}, "'vocab_size' counts 1099511627776"),
    "a dict for a name": ({"domains": '[{"a": 1}, "b"]'}, r"metadata 'domains' \(0\) is .*valid string"),
    "40,000 domains": ({"domains": json.dumps(["d"] * 40_000)}, "'domains' counts 40000"),
    "size of one layer": ({"expert_bytes": "[4096]"}, "'expert_bytes' names 1 layers, but 'expert_ids' has 2"),
    "parameters": ({"source": '{"total_parameters": "abc"}'}, r"metadata 'source' \(total_parameters\)"),
    "10^400 parameters": ({"source": '{"active_parameters": 1' + "0" * 400 + "}"}, "should be less than"),
    "loss": ({"source": '{"loss": "abc"}'}, r"metadata 'source' \(loss\)"),
    "loss of a domain": ({"source": '{"loss": {"code": "abc"}}'}, r"metadata 'source' \(loss.code\)"),
    "nested source": ({"source": "[" * 10_000}, "metadata 'source' is"),
    "no tokens": ({"tensors": {"token_ids": None}}, "tensor 'token_ids' is missing"),
    "shapes": (
        {"tensors": {"token_ids": torch.zeros(3, 4, dtype=torch.int32)}},
        "'token_ids' has 4 on axis seq, but the tensors before it have 5",
    ),
    "axes": (
        {"tensors": {"domain_ids": torch.zeros(3, 1, dtype=torch.int16)}},
        r"'domain_ids' has 2 axes \(3, 1\), not \(batch\)",
    ),
    "type": ({"tensors": {"token_ids": torch.zeros(3, 5)}}, "'token_ids' has type torch.float32; ids are integers"),
}


@pytest.mark.parametrize(("changes", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_file_is_refused(trace, tmp_path, changes, message):
    path = tmp_path / "trace.safetensors"
    save_trace(trace, path)
    rewritten(path, **changes)
    with pytest.raises(UserError, match=message) as error:
        load_trace(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [0, 5, 100, -10])
def test_truncated_file_is_refused(trace, tmp_path, size):
    path = tmp_path / "trace.safetensors"
    save_trace(trace, path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"trace\.safetensors is no readable safetensors file"):
        load_trace(path)


def test_missing_file_and_directory_are_refused(trace, tmp_path):
    with pytest.raises(UserError, match="there is no trace file"):
        load_trace(tmp_path / "absent")
    with pytest.raises(UserError, match="cannot write the trace to"):
        save_trace(trace, tmp_path / "absent" / "trace")


def test_metadata_is_plain_json(trace, tmp_path):
    from safetensors import safe_open

    save_trace(trace, tmp_path / "trace")
    with safe_open(tmp_path / "trace", framework="pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "moe_toy-routing-trace/1"
    assert json.loads(metadata["layer_ids"]) == [1, 3]
    assert json.loads(metadata["domains"]) == ["code", "web"]
    assert json.loads(metadata["source"]) == {"model": "toy", "revision": None}
