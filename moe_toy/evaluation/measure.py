"""From recorded routing to results: one pass over the files, then the summary and the tables."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from moe_toy.data.tokenizer import Tokenizer
from moe_toy.errors import UserError
from moe_toy.evaluation.correlations import correlation_table
from moe_toy.evaluation.expert_tables import CoActivationTable, ExpertTable, PositionTable
from moe_toy.evaluation.settings import MetricSettings
from moe_toy.evaluation.tables import BalanceTable, LossTable, NullTable, TextTable
from moe_toy.metrics.analyze import table_makers
from moe_toy.metrics.table_maker import Pass, TableMaker
from moe_toy.results import Results
from moe_toy.routing import RoutingTrace
from moe_toy.traces.notes import notes_on
from moe_toy.traces.recording import Recording

log = logging.getLogger(__name__)
VERSION = 2
"""Of the tables: raised where equal traces give other numbers, so that those of before are not taken for them."""
VOCABULARY_BYTES = 8e9


def measure(
    recording: Recording,
    settings: MetricSettings,
    tokenizer: Tokenizer | None,
    about: dict[str, Any],
    keep: Callable[[RoutingTrace], None] = lambda trace: None,
) -> Results:
    """`about` is the part of the summary that no trace knows: name, target, source. `keep` is shown every trace.

    Raises `UserError` where the counts would not fit into memory: a trace of a few kilobytes can name thousands of
    experts.
    """
    reading: Pass | None = None
    num_sequences = 0
    ordered, padded, prompted = True, False, False
    tokens_by_length: Counter[int] = Counter()
    for number, trace in enumerate(recording):
        keep(trace)
        num_sequences += trace.num_sequences
        ordered, padded = ordered and trace.ordered, padded or trace.padded
        prompted = prompted or trace.prompt_lengths is not None
        tokens_by_length[trace.sequence_length] += trace.num_sequences * trace.sequence_length
        if reading is None:
            with_vocabulary = vocabulary_fits(trace)
            first = trace
        counted = trace if with_vocabulary else replace(trace, vocab_size=None)
        if reading is None:
            reading = Pass(counted, makers_of(counted, settings, tokenizer))
        check_fits_memory(reading, trace, recording.files[number])
        reading.add(counted, number)
    tables = reading.tables()
    tables["correlations"] = correlation_table(tables)
    summary = summarize(first, recording.domains, num_sequences, tables, settings)
    summary |= {"num_sequences": num_sequences, "shortest_sequence": min(tokens_by_length)}
    summary["sequence_length"] = max(tokens_by_length)
    summary["notes"] = notes_on(
        replace(first, ordered=ordered, padded=padded), tokens_by_length, settings.segment_lengths, prompted=prompted
    )
    return Results(about | summary, tables)


def makers_of(first: RoutingTrace, settings: MetricSettings, tokenizer: Tokenizer | None) -> list[TableMaker]:
    """The makers of all tables of an evaluation but `correlations`, which compares other tables."""

    @cache
    def token_text(token_id: int) -> str:
        return f"#{token_id}" if tokenizer is None else tokenizer.decode([token_id])

    makers = table_makers(
        first,
        settings.segment_lengths,
        settings.cache_stride,
        settings.cold,
        settings.intervals,
        min_token_count=settings.min_token_count,
        domain_floor=settings.domain_floor,
        token_text=token_text,
    )
    makers += [
        BalanceTable(first),
        NullTable(
            first,
            settings.segment_lengths,
            samples=settings.null_samples,
            repeats=settings.null_repeats,
            cold=settings.cold,
        ),
        LossTable(),
        CoActivationTable(first, min_token_count=settings.min_token_count),
        PositionTable(first),
        ExpertTable(first),
    ]
    if tokenizer is not None and first.names_leaders:
        makers.append(TextTable(first, token_text, settings.text_tokens))
    return makers


def summarize(
    first: RoutingTrace,
    domains: list[str],
    num_sequences: int,
    tables: dict[str, Any],
    settings: MetricSettings,
) -> dict[str, Any]:
    return {
        **{name: first.source.get(name) for name in ("total_parameters", "active_parameters")},
        "layer_ids": list(first.layer_ids),
        "num_experts": first.num_experts,
        "top_k": first.expert_ids.shape[3],
        "vocab_size": first.vocab_size,
        "domains": domains,
        "samples_per_domain": num_sequences // len(domains),
        "sequence_length": first.sequence_length,
        "loss": float(tables["loss"].loss.mean()) if "loss" in tables else None,
        "settings": settings.as_json(),
        "version": VERSION,
    }


def vocabulary_fits(trace: RoutingTrace) -> bool:
    """Whether the counts of tokens by expert fit into memory; where they do not, the vocabulary is left out."""
    size = 3 * 4 * len(trace.layer_ids) * trace.num_experts * (trace.vocab_size or 0)
    fits = size <= min(VOCABULARY_BYTES, physical_memory() / 4)
    if not fits:
        log.warning("no vocabulary specialization: its counts would take %.0f GB", size / 1e9)
    return fits


def check_fits_memory(reading: Pass, trace: RoutingTrace, file: Path) -> None:
    """Raise `UserError` if what the makers count would take more than half of the machine's memory."""
    needed, memory = reading.memory(len(trace.domains)), physical_memory()
    if needed > memory / 2:
        raise UserError(
            f"{file}: counts of {len(trace.domains)} domains, {len(trace.layer_ids)} layers and {trace.num_experts} "
            f"experts take {needed / 1e9:.1f} GB, more than half of the {memory / 1e9:.1f} GB of this machine; lower "
            "num_experts if it is wrong, or try metrics.intervals=false"
        )


def physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
