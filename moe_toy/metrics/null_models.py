"""What a score would be without locality: the same routing decisions, dealt to other tokens.

Every null model permutes tokens, together with their routing in all layers, within groups, and so keeps the balance of
each group exactly while it destroys the order inside it:

- `corpus`: all tokens of the trace: only the global balance of experts is left;
- `domain`: tokens of one domain: balance and domain;
- `sequence`: tokens of one sequence: balance, domain and the topic of the document;
- `token`: occurrences of one token id: balance and vocabulary; each id keeps its average routing, and its place.
  An id that occurs once keeps its own routing, so give it enough data.

The steps from one score to the next split it: corpus is balance, domain - corpus is domain, sequence - domain is topic,
raw - sequence is the order of tokens (genuine locality), and token - corpus is what the words alone explain. The last
one overlaps with the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Float64, Integer
from torch import Tensor

from moe_toy.errors import UserError
from moe_toy.routing import RoutingTrace

NullModel = Literal["corpus", "domain", "sequence", "token"]


@dataclass(frozen=True)
class NullScores:
    """A score of a trace beside the same score of its null models, mean over `repeats` permutations."""

    raw: Float64[Tensor, "*pool"]
    corpus: Float64[Tensor, "*pool"]
    domain: Float64[Tensor, "*pool"]
    sequence: Float64[Tensor, "*pool"]
    token: Float64[Tensor, "*pool"]

    def parts(self) -> dict[str, Float64[Tensor, "*pool"]]:
        """The split of the raw score: balance + domain + topic + order = raw; vocabulary overlaps with them."""
        return {
            "balance": self.corpus,
            "domain": self.domain - self.corpus,
            "topic": self.sequence - self.domain,
            "order": self.raw - self.sequence,
            "vocabulary": self.token - self.corpus,
        }


def shuffle(trace: RoutingTrace, within: NullModel, seed: int = 0) -> RoutingTrace:
    """The trace with its tokens permuted within groups; the same seed gives the same permutation."""
    batch, seq = trace.num_sequences, trace.sequence_length
    group = _groups(trace, within).flatten()
    random = torch.randperm(batch * seq, generator=torch.Generator().manual_seed(seed))
    places = group.argsort(stable=True)  # of group 0, then of group 1, ...
    dealt = random[group[random].argsort(stable=True)]  # the same groups, each in random order
    source = torch.empty_like(places)
    source[places] = dealt

    source = source.to(trace.expert_ids.device)

    def dealt_to_layers(rows: Tensor) -> Tensor:
        return rows.flatten(1, 2)[:, source].view_as(rows)

    def dealt_to_tokens(ids: Tensor) -> Tensor:
        return ids.flatten()[source].view_as(ids)

    return replace(
        trace,
        expert_ids=dealt_to_layers(trace.expert_ids),
        weights=None if trace.weights is None else dealt_to_layers(trace.weights),
        token_ids=None if trace.token_ids is None else dealt_to_tokens(trace.token_ids),
        predicted_ids=None if trace.predicted_ids is None else dealt_to_tokens(trace.predicted_ids),
    )


def null_scores(
    trace: RoutingTrace, score: Callable[[RoutingTrace], Float64[Tensor, "*pool"]], seed: int = 0, repeats: int = 1
) -> NullScores:
    """Apply `score`, for instance `lambda trace: ...compute().layer.srp`, to the trace and to each null model. Without
    token ids the model of equal tokens is unknown: NaN."""
    if repeats < 1:
        raise UserError(f"repeats must be at least 1, not {repeats}; more average out the chance of a permutation")
    nulls = {
        within: torch.stack([score(shuffle(trace, within, seed + i)) for i in range(repeats)]).mean(0)
        for within in get_args(NullModel)
        if within != "token" or trace.token_ids is not None
    }
    raw = score(trace)
    return NullScores(**{"token": torch.full_like(raw, torch.nan)} | nulls, raw=raw)


def _groups(trace: RoutingTrace, within: NullModel) -> Integer[Tensor, "batch seq"]:
    shape = trace.num_sequences, trace.sequence_length
    if within == "token":
        return trace.token_ids.cpu().long()
    if within == "sequence":
        return torch.arange(shape[0])[:, None].expand(shape)
    if within == "domain" and trace.domain_ids is not None:
        return trace.domain_ids.cpu().long()[:, None].expand(shape)
    return torch.zeros(shape, dtype=torch.int64)
