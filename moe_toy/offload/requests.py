"""What is replayed of recorded routing: some requests of every domain, and how large their experts are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from jaxtyping import Integer
from torch import Tensor

from moe_toy.errors import UserError
from moe_toy.offload.settings import OffloadSettings
from moe_toy.routing import RoutingTrace


class Request(NamedTuple):
    domain: str
    number: int
    expert_ids: Integer[Tensor, "layer seq k"]
    prompt_length: int


class Requests(NamedTuple):
    requests: list[Request]
    num_experts: int
    expert_bytes: list[int]
    """Of each layer."""


def requests_of(traces: Iterable[RoutingTrace], settings: OffloadSettings, expert_bytes: float | None) -> Requests:
    """The first requests of every domain, cut after `decode_length` tokens. The prompt is as long as was recorded, else
    `prompt_length`; shorter requests are left out. `expert_bytes` stands in where no sizes were recorded.

    Raises `UserError` where nothing is left, sizes are unknown, or the files are of different models.
    """
    requests: list[Request] = []
    models = set()
    seen: Counter[str] = Counter()
    for trace in traces:
        layers, _, _, k = trace.expert_ids.shape
        sizes = trace.expert_bytes or (None if expert_bytes is None else (round(expert_bytes),) * layers)
        if sizes is None:
            raise UserError(
                "offload replays rows as large as experts, which the recording does not say; give expert_bytes, with "
                "bandwidth_gbps and compute_ms"
            )
        models.add((trace.num_experts, k, tuple(sizes)))
        for b in range(trace.num_sequences):
            domain = str(trace.domains[int(trace.domain_ids[b])]) if trace.domain_ids is not None else _only(trace)
            recorded = 0 if trace.prompt_lengths is None else int(trace.prompt_lengths[b])
            prompt = recorded or settings.prompt_length
            if prompt < trace.sequence_length and seen[domain] < settings.samples_per_domain:
                kept = trace.expert_ids[:, b, : prompt + settings.decode_length].long()
                requests.append(Request(domain, seen[domain], kept, prompt))
                seen[domain] += 1
    if len(models) > 1:
        raise UserError("the recordings are of models of different sizes; replay them one by one")
    if not requests:
        raise UserError(f"no request is longer than its prompt of {settings.prompt_length} tokens; lower it")
    num_experts, _, sizes = models.pop()
    return Requests(requests, num_experts, list(sizes))


def _only(trace: RoutingTrace) -> str:
    return str(trace.domains[0]) if trace.domains else "all"
