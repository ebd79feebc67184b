"""From recorded routing to results: summary and tables."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd
import torch

from moe_toy.data.tokenizer import Tokenizer
from moe_toy.errors import UserError
from moe_toy.evaluation.capture import joined
from moe_toy.evaluation.correlations import correlation_table
from moe_toy.evaluation.settings import MetricSettings
from moe_toy.evaluation.tables import LOAD_BATCH, balance_table, loss_table, named_tokens, null_table, text_table
from moe_toy.metrics import analyze
from moe_toy.results import Results
from moe_toy.routing import RoutingTrace
from moe_toy.traces.recording import Recording

log = logging.getLogger(__name__)
VOCABULARY_BYTES = 8e9
RESAMPLES = 1000


def measure(
    recording: Recording, settings: MetricSettings, tokenizer: Tokenizer | None, about: dict[str, Any]
) -> Results:
    """`about` is the part of the summary that no trace knows: name, target, source."""
    tables = analyze(
        countable(recording, settings),
        settings.segment_lengths,
        settings.cache_stride,
        settings.cold,
        settings.intervals,
        min_token_count=settings.min_token_count,
        domain_floor=settings.domain_floor,
    )
    tables["balance"] = balance_table(recording)
    sample = some_of_each_domain(recording, settings.null_samples)
    tables["nulls"] = null_table(sample, settings.segment_lengths, settings.null_repeats)
    tables["correlations"] = correlation_table(tables)
    if "tokens" in tables:
        tables["tokens"] = named_tokens(tables["tokens"], tokenizer)
    losses = loss_table(recording)
    if losses is not None:
        tables["loss"] = losses
    if tokenizer is not None:
        tables["text"] = text_table(some_of_each_domain(recording, 1), tokenizer, settings.text_tokens)
    return Results(summarize(recording, sample, losses, settings, about), tables)


def summarize(
    recording: Recording,
    sample: RoutingTrace,
    losses: pd.DataFrame | None,
    settings: MetricSettings,
    about: dict[str, Any],
) -> dict[str, Any]:
    sizes = [len(trace.token_ids) for trace in recording]
    return {
        **about,
        **{name: sample.source.get(name) for name in ("total_parameters", "active_parameters")},
        "layer_ids": list(sample.layer_ids),
        "num_experts": sample.num_experts,
        "top_k": sample.expert_ids.shape[3],
        "vocab_size": sample.vocab_size,
        "domains": recording.domains,
        "samples_per_domain": sum(sizes) // len(recording.domains),
        "sequence_length": sample.token_ids.shape[1],
        "loss": None if losses is None else float(losses.loss.mean()),
        "settings": settings.as_json(),
    }


def some_of_each_domain(recording: Recording, wanted: int) -> RoutingTrace:
    """The first `wanted` sequences of every domain, as one trace."""
    kept: dict[int, int] = {}
    parts = []
    for trace in recording:
        rows = []
        for row, domain in enumerate(trace.domain_ids.tolist()):
            if kept.setdefault(domain, 0) < wanted:
                kept[domain] += 1
                rows.append(row)
        if rows:
            parts.append(trace.select(torch.tensor(rows)))
    return joined(parts)


def countable(recording: Recording, settings: MetricSettings) -> Iterator[RoutingTrace]:
    """The traces, without their vocabulary size where the counts of tokens by expert would not fit into memory.

    Raises `UserError` where other counts would not: a trace of a few kilobytes can name thousands of experts.
    """
    for number, trace in enumerate(recording):
        needed, memory = bytes_of_counts(trace, len(recording.domains), settings), physical_memory()
        if needed > memory / 2:
            raise UserError(
                f"{recording.files[number]}: counts of {len(recording.domains)} domains, {len(trace.layer_ids)} layers "
                f"and {trace.num_experts} experts take {needed / 1e9:.1f} GB, more than half of the {memory / 1e9:.1f} "
                "GB of this machine; lower num_experts if it is wrong, or try metrics.intervals=false"
            )
        size = 3 * 4 * len(trace.layer_ids) * trace.num_experts * (trace.vocab_size or 0)
        if size > VOCABULARY_BYTES:
            if number == 0:
                log.warning("no vocabulary specialization: its counts would take %.0f GB", size / 1e9)
            yield replace(trace, vocab_size=None)
        else:
            yield trace


def bytes_of_counts(trace: RoutingTrace, num_domains: int, settings: MetricSettings) -> int:
    """Of what grows fastest: histograms of SRP and hits of caches, both resampled, and the counts of all segments."""
    layers, batch, seq, _ = trace.expert_ids.shape
    bins = sum(length + 1 for length in settings.segment_lengths)
    numbers = num_domains * layers * trace.num_experts * bins
    if settings.intervals:
        caches = 2 * (3 + len(settings.segment_lengths))  # scopes, policies
        numbers += num_domains * layers * RESAMPLES * (bins + caches * trace.num_experts)
    return 8 * (numbers + 3 * min(batch, LOAD_BATCH) * seq * trace.num_experts)


def physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
