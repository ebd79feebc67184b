"""What is measured. The defaults are the paper's choices, where those fit fewer sequences."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, field
from typing import Annotated, Any

from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator
from pydantic.dataclasses import dataclass

from moe_toy.errors import UserError
from moe_toy.findings.throughput import Positive
from moe_toy.metrics.analyze import SEGMENT_LENGTHS
from moe_toy.metrics.cache import Cold
from moe_toy.metrics.specialization import DOMAIN_FLOOR
from moe_toy.metrics.vocabulary import MIN_TOKEN_COUNT

DEVICE = ("bandwidth_gbps", "expert_bytes", "compute_ms")
"""What describes the device that tokens per second are computed for."""

Lengths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class MetricSettings:
    segment_lengths: Lengths = SEGMENT_LENGTHS
    cache_stride: PositiveInt = 4
    """Caches are simulated on every n-th sequence of a domain. The paper takes 16, but of 2048 sequences."""
    cold: Cold = "hit"
    intervals: bool = True
    """95 % bounds from 1000 resamples of whole sequences."""
    min_token_count: PositiveInt = MIN_TOKEN_COUNT
    domain_floor: NonNegativeFloat = DOMAIN_FLOOR
    null_samples: PositiveInt = 4
    """Sequences of each domain that the null models shuffle."""
    null_repeats: PositiveInt = 1
    text_tokens: PositiveInt = 128
    """Length of the passage of each domain that is kept with its experts."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"segment_lengths": list(self.segment_lengths)}


def check_segments_fit(segment_lengths: Sequence[int], longest: int, where: str) -> None:
    """Raise `UserError` where no segment fits into the `longest` sequence: there would be no SRP."""
    if longest < min(segment_lengths):
        raise UserError(
            f"{where}: no segment length fits the sequences, of at most {longest} tokens; give a shorter one, "
            f"metrics.segment_lengths={list(segment_lengths)} now, or longer sequences"
        )


@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True, extra="ignore"))
class RunSettings:
    """What is not of any part."""

    bandwidth_gbps: Positive | None
    expert_bytes: Positive | None
    compute_ms: Positive | None
    save_trace: bool
    allow_different_text: bool
    strict: bool
    out_dir: str
    seed: NonNegativeInt
    threads: PositiveInt | None

    @model_validator(mode="after")
    def check_device(self) -> RunSettings:
        if len({getattr(self, name) is None for name in DEVICE}) > 1:
            raise UserError(f"{', '.join(DEVICE)} go together; give all three or none")
        return self


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What an evaluation is asked for, whatever its target."""

    metrics: MetricSettings = field(default_factory=MetricSettings)
    data: Callable[[], Any] | None = None
    """Builds the data module that the config names, for targets that read text."""
    tokenizer: str | None = None
    """A tokenizer.json or a hub name; None: that of the model."""
    name: str | None = None
    """In the report; None: that of the target."""
    save_trace: bool = False
    allow_different_text: bool = False
    """Whether evaluations of different text may stand side by side."""
    device: Mapping[str, float | None] = field(default_factory=dict)
    """The values of `DEVICE` where a device is described."""
