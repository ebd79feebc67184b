"""The tables that an evaluation adds to those of `moe_toy.metrics.analyze`."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from moe_toy.data.tokenizer import Tokenizer
from moe_toy.metrics import SRP, CacheHitRate, LoadBalance, LoadScores, null_scores
from moe_toy.routing import RoutingTrace
from moe_toy.traces.recording import Recording

NULL_CACHE_LENGTH = 16
NULL_CACHE_RATIOS = (1.0, 1.5, 2.0, 3.0)
LOAD_BATCH = 64


def balance_table(recording: Recording) -> pd.DataFrame:
    """Evenness of load over everything, within a sequence and within a segment, per layer and domain."""
    metric: LoadBalance | None = None
    for trace in recording:
        if metric is None:
            metric = LoadBalance(num_layers=len(trace.layer_ids), num_experts=trace.num_experts)
        if metric.num_domains < len(recording.domains):
            metric.extend_domains(len(recording.domains))
        for part in torch.arange(len(trace.token_ids)).split(LOAD_BATCH):
            metric.update(trace.select(part))
    scores = metric.compute()
    return pd.concat(
        [
            *_balance_rows(scores.overall, None),
            *(
                rows
                for d, domain in enumerate(recording.domains)
                for rows in _balance_rows(LoadScores(**{k: v[d] for k, v in vars(scores.by_domain).items()}), domain)
            ),
        ],
        ignore_index=True,
    )


def _balance_rows(scores: LoadScores, domain: str | None) -> list[pd.DataFrame]:
    columns = {
        "corpus": {
            "cv": scores.cv,
            "max_violation": scores.max_violation,
            "entropy": scores.entropy,
            "dead_experts": scores.dead_experts,
        },
        "sequence": {"cv": scores.sequence_cv, "max_violation": scores.sequence_max_violation},
        "segment": {"cv": scores.segment_cv},
    }
    order = ["layer", "domain", "scope", "cv", "max_violation", "entropy", "dead_experts"]
    parts = []
    for scope, values in columns.items():
        part = pd.DataFrame({name: value.numpy() for name, value in values.items()})
        parts.append(part.assign(layer=range(len(part)), domain=domain, scope=scope).reindex(columns=order))
    return parts


def null_table(trace: RoutingTrace, segment_lengths: tuple[int, ...], repeats: int) -> pd.DataFrame:
    """SRP and the hit rate of the segment cache of the whole model, beside the same of each null model."""
    sizes = {"num_layers": len(trace.layer_ids), "num_experts": trace.num_experts}
    lengths = [m for m in segment_lengths if m <= trace.token_ids.shape[1]]
    keys = [("srp", m, None) for m in lengths] + [("sch", NULL_CACHE_LENGTH, ratio) for ratio in NULL_CACHE_RATIOS]

    def score(shuffled: RoutingTrace) -> Tensor:
        segments = [SRP(**sizes, segment_length=m, num_domains=len(trace.domains)) for m in lengths]
        cache = CacheHitRate(
            **sizes,
            top_k=trace.expert_ids.shape[3],
            num_domains=len(trace.domains),
            scope="model",
            segment_length=NULL_CACHE_LENGTH,
        )
        for metric in (*segments, cache):
            metric.update(shuffled)
        hit_rates = cache.compute()
        return torch.stack(
            [metric.compute().model.srp for metric in segments]
            + [hit_rates.at_ratio(ratio)[0] for ratio in NULL_CACHE_RATIOS]
        )

    scores = null_scores(trace, score, repeats=repeats)
    table = pd.DataFrame(keys, columns=["metric", "segment_length", "cache_ratio"])
    return table.assign(**{name: value.numpy() for name, value in vars(scores).items()})


def loss_table(recording: Recording) -> pd.DataFrame | None:
    """Of each domain; None where no trace knows its loss."""
    columns = {name: {} for name in ("loss", "bits_per_byte")}
    for trace in recording:
        for name, by_domain in columns.items():
            by_domain.update(trace.source.get(name) or {})
    table = pd.DataFrame(columns, dtype=float).rename_axis("domain").reset_index()
    return None if table.loss.isna().all() else table


def named_tokens(table: pd.DataFrame, tokenizer: Tokenizer | None) -> pd.DataFrame:
    """The table of strongest tokens with their text, where that is known."""
    return table.assign(token=[token_text(tokenizer, int(id)) for id in table.token_id])


def text_table(passages: RoutingTrace, tokenizer: Tokenizer, length: int) -> pd.DataFrame:
    """The first `length` tokens of each sequence with all experts of every token, best first."""
    layers, _, _, top_k = passages.expert_ids.shape
    parts = []
    for sequence, (token_ids, domain) in enumerate(zip(passages.token_ids, passages.domain_ids, strict=True)):
        tokens = [token_text(tokenizer, int(id)) for id in token_ids[:length]]
        experts = passages.expert_ids[:, sequence, :length].long()
        index = pd.MultiIndex.from_product(
            [range(layers), range(len(tokens)), range(top_k)], names=["layer", "position", "rank"]
        )
        part = pd.DataFrame({"expert": experts.flatten().numpy()}, index=index).reset_index()
        part["token"] = part.position.map(tokens.__getitem__)
        parts.append(part.assign(domain=passages.domains[int(domain)], sequence=sequence))
    return pd.concat(parts, ignore_index=True)[["domain", "sequence", "position", "token", "layer", "rank", "expert"]]


def token_text(tokenizer: Tokenizer | None, token_id: int) -> str:
    return f"#{token_id}" if tokenizer is None else tokenizer.decode([token_id])
