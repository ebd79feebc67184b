"""Routed experts as inference engines return them become traces."""

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from moe_toy.errors import UserError
from moe_toy.traces.foreign import import_traces

ROWS, LAYERS, K, EXPERTS = 11, 3, 2, 8


@pytest.fixture
def routed():
    """Eleven tokens; layer 0 is dense and filled with one number, as engines do."""
    draw = np.random.default_rng(0)
    experts = draw.random((ROWS, LAYERS, EXPERTS)).argsort(-1)[..., :K].astype(np.int32)
    experts[:, 0] = 255
    return experts


def imported(path, arrays, length=4):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    else:
        np.save(path, arrays["routed_experts"])
        np.save(path.with_suffix(".tokens.npy"), arrays["token_ids"])
    (trace,) = import_traces(path, num_experts=EXPERTS, sequence_length=length)
    return trace


@pytest.mark.parametrize("ending", [".npz", ".safetensors", ".npy"])
def test_one_sequence_is_cut_into_blocks(tmp_path, routed, ending):
    trace = imported(tmp_path / f"a{ending}", {"routed_experts": routed, "token_ids": np.arange(ROWS)})
    assert trace.layer_ids == (1, 2)
    assert trace.token_ids.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert torch.equal(trace.expert_ids[0, 1], torch.from_numpy(routed[4:8, 1].astype(np.int64)))


def test_sequences_are_never_mixed_and_their_last_tokens_have_no_routing(tmp_path, routed):
    lengths = np.array([5, 6])
    token_ids = np.concatenate([np.arange(6), 100 + np.arange(7)])  # one more than was fed, in each
    trace = imported(tmp_path / "a.npz", {"routed_experts": routed, "token_ids": token_ids, "lengths": lengths})
    assert trace.token_ids.tolist() == [[0, 1, 2, 3], [100, 101, 102, 103]]
    assert torch.equal(trace.expert_ids[0, 1], torch.from_numpy(routed[5:9, 1].astype(np.int64)))


@pytest.mark.parametrize(("longest", "dtype"), [(127, np.int8), (255, np.uint8)], ids=["int8", "uint8"])
def test_lengths_of_any_integer_type(tmp_path, longest, dtype):
    """The longest has a last token more, which its type does not count up to."""
    experts = np.random.default_rng(0).random((3 + longest, LAYERS, EXPERTS)).argsort(-1)[..., :K]
    token_ids = np.concatenate([np.arange(4), 100 + np.arange(longest + 1)])
    arrays = {"routed_experts": experts, "token_ids": token_ids, "lengths": np.array([3, longest], dtype)}
    trace = imported(tmp_path / "a.npz", arrays, length=longest)
    assert trace.token_ids.tolist() == [list(range(100, 100 + longest))]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token_ids": np.arange(3)}, "3 token ids for 11 rows"),
        ({"lengths": np.array([5, 5])}, "'lengths' sum to 10, but there are 11 rows"),
        ({"lengths": np.array([12, -1])}, "'lengths' must be between 0 and the 11 rows"),
        ({"routed_experts": np.zeros((ROWS, 2), np.int32)}, r"must be \[token, layer, k\]"),
        ({"routed_experts": np.zeros((ROWS, 2, 0), np.int32)}, r"must be \[token, layer, k\]"),
        ({"token_ids": np.ones(ROWS)}, "'token_ids' has type float64; it must be integers"),
        ({"routed_experts": np.zeros((ROWS, 1, 2), np.int32)}, "none is an MoE layer"),
        (
            {"routed_experts": np.stack([np.arange(ROWS), np.arange(ROWS) + 20], -1)[:, None]},
            r"row 0 names expert 20 in layer 0, but target.num_experts is 8; target.num_experts=31 works",
        ),
        ({"token_ids": np.arange(ROWS) - 7}, "row 0 has the token id -7, which must not be negative"),
        ({"token_ids": np.arange(ROWS, dtype=np.uint64) + 2**63 - 5}, "row 0 has the token id 9223372036854775803"),
        ({"token_ids": np.where(np.arange(ROWS) == 4, 2**31, 1)}, "row 4 has the token id 2147483648"),
        ({"routed_experts": None}, "has no array 'routed_experts', only token_ids"),
    ],
    ids=[
        "tokens",
        "lengths",
        "negative",
        "shape",
        "no k",
        "type",
        "all dense",
        "too few experts",
        "below",
        "huge",
        "large",
        "missing",
    ],
)
def test_what_does_not_fit_is_told(tmp_path, routed, change, message):
    arrays = {"routed_experts": routed, "token_ids": np.arange(ROWS)} | change
    with pytest.raises(UserError, match=message):
        imported(tmp_path / "a.npz", {name: array for name, array in arrays.items() if array is not None})


def test_sequences_shorter_than_a_block_are_told(tmp_path, routed):
    arrays = {"routed_experts": routed, "token_ids": np.arange(ROWS)}
    with pytest.raises(UserError, match=r"no sequence has target\.sequence_length=64 tokens, the longest has 11"):
        imported(tmp_path / "a.npz", arrays, length=64)


@pytest.mark.parametrize("ending", [".npz", ".npy", ".safetensors"])
def test_arrays_without_token_ids_are_read(tmp_path, routed, ending):
    if ending == ".npy":
        np.save(tmp_path / "a.npy", routed)
    elif ending == ".npz":
        np.savez(tmp_path / "a.npz", routed_experts=routed, lengths=np.array([5, 6]))
    else:
        save_file({"routed_experts": routed}, tmp_path / "a.safetensors")
    *_, trace = import_traces(tmp_path / f"a{ending}", num_experts=EXPERTS)
    assert trace.token_ids is None
    length = trace.sequence_length
    assert np.array_equal(trace.expert_ids[:, 0].permute(1, 0, 2).numpy(), routed[:length, 1:])


def test_padded_requests_without_token_ids_are_read(tmp_path, routed):
    padded = np.full((2, 6, LAYERS, K), -1, np.int32)
    padded[0, :5], padded[1, :6] = routed[:5], routed[5:]
    np.savez(tmp_path / "a.npz", routed_experts=padded)
    long, short = import_traces(tmp_path / "a.npz", num_experts=EXPERTS)
    assert (long.sequence_length, short.sequence_length, short.token_ids) == (6, 5, None)
    assert np.array_equal(short.expert_ids[:, 0].permute(1, 0, 2).numpy(), routed[:5, 1:])


def test_a_small_file_cannot_unpack_to_a_huge_one(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", routed_experts=np.zeros((10**6, 1, 2), np.int8), token_ids=np.zeros(10**6))
    with pytest.raises(UserError, match="unpacks to more than 100 times its size"):
        import_traces(tmp_path / "a.npz", num_experts=EXPERTS, sequence_length=4)
