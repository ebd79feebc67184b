"""Every reader of files that may come from somebody else, with a small valid file to start from."""

import json
from collections import deque
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from moe_toy.data.readers import read_documents
from moe_toy.data.tokenizer import Tokenizer, train
from moe_toy.routing import RoutingTrace
from moe_toy.runs.checkpoint import Checkpoint
from moe_toy.runs.checkpoint_file import save_checkpoint
from moe_toy.traces.foreign import import_traces
from moe_toy.traces.trace_file import load_trace, save_trace
from moe_toy.training.checkpoint_io import AtomicCheckpointIO
from tests.model.conftest import MODEL, MOE

TEXTS = ["one two three", "vier fünf sechs", "七八九 " * 30]


def documents(path: Path) -> None:
    deque(read_documents(path, 100), maxlen=0)


def checkpoint(path: Path) -> None:
    AtomicCheckpointIO().load_checkpoint(path)
    opened = Checkpoint.open(path)
    _ = opened.model_config, opened.weights


def tokenizer(path: Path) -> None:
    loaded = Tokenizer.load(path)
    _ = loaded.token_bytes
    loaded.encode(TEXTS)


def write_parquet(path: Path) -> None:
    pq.write_table(pa.table({"text": TEXTS * 5, "number": range(15)}), path)


def write_jsonl(path: Path) -> None:
    path.write_text("".join(f'{{"text": "{text}", "n": 1}}\n' for text in TEXTS))


def write_txt(path: Path) -> None:
    path.write_text("\n\n".join(TEXTS * 3))


def write_trace(path: Path) -> None:
    ids = torch.stack([torch.randperm(6, generator=torch.manual_seed(0))[:2] for _ in range(24)]).view(2, 3, 4, 2)
    trace = RoutingTrace(
        expert_ids=ids, token_ids=torch.arange(12).view(3, 4), num_experts=6, layer_ids=(0, 1), vocab_size=20
    )
    save_trace(trace, path)


def write_checkpoint(path: Path) -> None:
    config = {"model": MODEL | {"moe": MOE}}
    torch.save({"hyper_parameters": config, "state_dict": {"model.a": torch.randn(9)}, "global_step": 3}, path)


def write_own_checkpoint(path: Path) -> None:
    save_checkpoint(
        {"state_dict": {"model.a": torch.randn(9)}, "hyper_parameters": {"model": MODEL | {"moe": MOE}}}, path
    )


def write_tokenizer(path: Path) -> None:
    train(TEXTS, 262).backend.save(str(path))


def chosen_experts() -> np.ndarray:
    return np.random.default_rng(0).random((12, 2, 6)).argsort(-1)[..., :2].astype(np.int32)


def write_routed_npz(path: Path) -> None:
    np.savez_compressed(path, routed_experts=chosen_experts(), token_ids=np.arange(12), lengths=np.array([7, 5]))


def write_routed_npy(path: Path) -> None:
    np.save(path, chosen_experts())
    np.save(path.with_suffix(".tokens.npy"), np.arange(12))


def chosen_rows() -> list[tuple[int, int, list[int]]]:
    """Token, layer and experts of each row."""
    return [
        (token, layer, ids.tolist())
        for (token, layer), ids in zip(np.ndindex(12, 2), chosen_experts().reshape(-1, 2), strict=True)
    ]


def write_json_lines(path: Path) -> None:
    rows = (
        {"req_id": token // 6, "token_idx": token % 6, "layer": layer, "topk_ids": ids, "topk_weights": [0.6, 0.4]}
        for token, layer, ids in chosen_rows()
    )
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def write_route_csv(path: Path) -> None:
    lines = ["# n_expert=6", "# layer=0 expert_bytes=300", "# layer=1 expert_bytes=300"]
    lines.append("turn,phase,step,layer,slot,expert")
    for token, layer, ids in chosen_rows():
        lines += [f"{token // 6},{int(token % 6 > 2)},{token % 6},{layer},{slot},{id}" for slot, id in enumerate(ids)]
    path.write_text("\n".join(lines))


def write_list_csv(path: Path) -> None:
    lines = [f'{token // 6},{layer},{token % 6},"{ids}"' for token, layer, ids in chosen_rows()]
    path.write_text("\n".join(["request,layer,token,experts", *lines]))


def routed_experts(path: Path) -> None:
    import_traces(path, num_experts=6, sequence_length=2)


READERS = {
    "a.parquet": (write_parquet, documents),
    "a.jsonl": (write_jsonl, documents),
    "a.txt": (write_txt, documents),
    "a.safetensors": (write_trace, load_trace),
    "routed.npz": (write_routed_npz, routed_experts),
    "routed.npy": (write_routed_npy, routed_experts),
    "routed.jsonl": (write_json_lines, routed_experts),
    "routed.csv": (write_route_csv, routed_experts),
    "lists.csv": (write_list_csv, routed_experts),
    "plain.ckpt": (write_checkpoint, checkpoint),
    "own.ckpt": (write_own_checkpoint, checkpoint),
    "tokenizer.json": (write_tokenizer, tokenizer),
}
