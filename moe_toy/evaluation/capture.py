"""Feed text to a model and keep its routing: one trace file per domain, so that a broken run can go on."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Int
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from moe_toy.data.tokenizer import Tokenizer
from moe_toy.errors import UserError
from moe_toy.evaluation.samples import Samples
from moe_toy.evaluation.target import Limits, LoadedModel, ModelTarget
from moe_toy.routing import RoutingTrace, joined
from moe_toy.traces.trace_file import save_trace

log = logging.getLogger(__name__)
TIME_LEFT = (
    TextColumn("{task.description:32}"),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("sequences,"),
    TimeRemainingColumn(),
    TextColumn("left"),
)


def capture(target: ModelTarget, samples: Samples, folder: Path) -> list[Path]:
    """The trace file of every domain, in their order; those in `folder` already are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {domain: folder / f"{domain}.safetensors" for domain in samples.domains}
    missing = [domain for domain, file in files.items() if not file.exists()]
    if missing:
        model = target.load()
        console = Console(stderr=True)
        with Progress(*TIME_LEFT, console=console, disable=not console.is_terminal, transient=True) as bar:
            task = bar.add_task("", total=sum(map(samples.count, missing)))
            for number, domain in enumerate(missing, 1):
                bar.update(task, description=f"Reading {domain}")
                batches = advancing(bar, task, samples.batches(domain, target.batch_size))
                save_trace(record(model, batches, domain, samples.tokenizer), files[domain])
                if not console.is_terminal:
                    log.info("Read %s (%d of %d domains)", domain, number, len(missing))
    return list(files.values())


def check_fits(limits: Limits, samples: Samples) -> None:
    """Raise `UserError` for text that the model cannot read."""
    if samples.tokenizer.vocab_size > limits.vocab_size:
        raise UserError(
            f"the tokenizer has {samples.tokenizer.vocab_size} tokens, but the model knows {limits.vocab_size}; "
            "give the model's own as data.tokenizer"
        )
    if limits.max_seq_len is not None and samples.length > limits.max_seq_len:
        raise UserError(
            f"data.validation_length={samples.length} is longer than the {limits.max_seq_len} tokens that the model "
            "can read; lower it"
        )


def record(
    model: LoadedModel, batches: Iterable[Int[Tensor, "batch seq"]], domain: str, tokenizer: Tokenizer
) -> RoutingTrace:
    """One trace of all batches. Raises `UserError` where the model computes NaN.

    Its `source` holds the numbers of parameters and, by domain, `loss` in nats per token and `bits_per_byte`; None
    where unknown.
    """
    token_bytes = bytes_of(tokenizer, model.vocab_size)
    traces, nats, targets, num_bytes = [], 0.0, 0, 0
    for token_ids in batches:
        observed = model.observe(token_ids)
        traces.append(compact(observed.trace))
        if observed.token_losses is not None:
            nats += observed.token_losses.double().sum().item()
            targets += observed.token_losses.numel()
            num_bytes += token_bytes[token_ids[:, 1:]].sum().item()
    if math.isnan(nats):
        raise UserError(
            f"the loss of the model on {domain} is NaN, so its routing there means nothing; see whether its weights "
            "are whole, or load a Hugging Face model with target.dtype=float32"
        )
    trace = joined(traces)
    source = {
        "total_parameters": model.total_parameters,
        "active_parameters": model.active_parameters,
        "loss": {domain: nats / targets if targets else None},
        "bits_per_byte": {domain: nats / math.log(2) / num_bytes if num_bytes else None},
    }
    domain_ids = torch.zeros(len(trace.token_ids), dtype=torch.int64)
    return replace(trace, domain_ids=domain_ids, domains=(domain,), source=source)


def compact(trace: RoutingTrace) -> RoutingTrace:
    """On the CPU, in the smallest integers, without the weights, which no metric reads."""
    smallest = torch.uint8 if trace.num_experts <= 2**8 else torch.uint16
    return replace(
        trace,
        expert_ids=trace.expert_ids.to("cpu", smallest),
        token_ids=trace.token_ids.to("cpu", torch.int32),
        predicted_ids=None if trace.predicted_ids is None else trace.predicted_ids.to("cpu", torch.int32),
        weights=None,
    )


def bytes_of(tokenizer: Tokenizer, vocab_size: int) -> Int[Tensor, " vocab"]:
    """Bytes of text per token id; all 0 for tokenizers which do not say."""
    try:
        counts = tokenizer.token_bytes
    except UserError:
        return torch.zeros(vocab_size, dtype=torch.int64)
    return torch.nn.functional.pad(counts, (0, vocab_size - len(counts)))


def advancing(bar: Progress, task: int, batches: Iterator[Tensor]) -> Iterator[Tensor]:
    for batch in batches:
        yield batch
        bar.advance(task, len(batch))
