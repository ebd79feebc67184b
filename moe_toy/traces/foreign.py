"""Files of other programs as routing traces: recognised by their content, cleaned, and sorted by length."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from moe_toy.errors import UserError
from moe_toy.routing import RoutingTrace
from moe_toy.traces import arrays, expert_lists, json_lines, route_csv
from moe_toy.traces.contents import bare_name, head
from moe_toy.traces.requests import Requests, cleaned, with_answers

log = logging.getLogger(__name__)
IMPORTERS = (arrays, json_lines, route_csv, expert_lists)
ENDINGS = (*arrays.ENDINGS, ".jsonl", ".json", ".csv")


def import_traces(
    path: Path, *, num_experts: int | None, sequence_length: int | None = None, keep_constant_layers: bool = False
) -> list[RoutingTrace]:
    """A trace for each length of request, the longest first, of one domain with the name of the file. With
    `sequence_length` requests are cut into blocks of so many tokens, and what is left over is dropped."""
    requests = cleaned(read(path), path, num_experts, keep_constant_layers=keep_constant_layers)
    if sequence_length is not None:
        requests = _blocks(requests, path, sequence_length)
    requests = with_answers(requests, path)
    lengths = np.array([len(ids) for ids in requests.experts])
    return [_trace(requests, np.flatnonzero(lengths == n), path) for n in sorted(set(lengths.tolist()), reverse=True)]


def read(path: Path) -> Requests:
    if Path(path.name.lower().removesuffix(".gz")).suffix in arrays.ENDINGS:
        return arrays.read(path)
    start = head(path)
    if not start.strip():
        raise UserError(f"{path} is empty; record it again, or remove it from the folder")
    for importer in IMPORTERS:
        if importer.recognise(start):
            return importer.read(path)
    raise UserError(
        f"{path} is no recording of routing that is known: arrays (.npy, .npz, .safetensors), JSON lines with "
        "token_idx, layer and topk_ids, or CSV with layer, token and experts; convert it, or remove it from the folder"
    )


def _blocks(requests: Requests, path: Path, length: int) -> Requests:
    sizes = [len(ids) for ids in requests.experts]
    wanted = [(i, first, first + length) for i, n in enumerate(sizes) for first in range(0, n - length + 1, length)]
    if not wanted:
        raise UserError(
            f"{path}: no sequence has target.sequence_length={length} tokens, the longest has {max(sizes)}; lower it"
        )
    if dropped := sum(sizes) - length * len(wanted):
        log.info("%s: %d of %d tokens do not fill a block of %d", path, dropped, sum(sizes), length)
    return requests.pieces(wanted)


def _trace(requests: Requests, members: np.ndarray, path: Path) -> RoutingTrace:
    """Requests of one length."""
    chosen = torch.from_numpy(np.stack([requests.experts[i] for i in members])).permute(2, 0, 1, 3).contiguous()
    tokens, prompts = requests.token_ids, requests.prompt_lengths
    return RoutingTrace(
        expert_ids=chosen,
        token_ids=None if tokens is None else torch.from_numpy(np.stack([tokens[i] for i in members]).astype(np.int64)),
        num_experts=requests.num_experts,
        layer_ids=requests.layer_ids,
        prompt_lengths=torch.tensor([prompts[i] for i in members]) if prompts and any(prompts) else None,
        ordered=requests.ordered,
        padded=any((ids < 0).any() for ids in requests.experts),
        expert_bytes=requests.expert_bytes,
        domain_ids=torch.zeros(len(members), dtype=torch.int64),
        domains=(bare_name(path),),
    )
