"""What is asked of a measurement of decoding with experts in slow memory."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import ByteSize, ConfigDict, Field, PositiveInt, model_validator
from pydantic.dataclasses import dataclass

from moe_toy.errors import UserError
from moe_toy.offload.cache import Scope
from moe_toy.offload.layout import DType
from moe_toy.offload.policies import PolicyName
from moe_toy.offload.readers import Kind

Bytes = Annotated[ByteSize, Field(gt=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Arm(NamedTuple):
    """One way to hold experts."""

    policy: PolicyName
    capacity: int
    """Slots for experts of all layers together, those for guesses among them."""
    cache_ratio: float

    def __str__(self) -> str:
        return f"{self.policy} {self.cache_ratio:.3g}x"


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class OffloadSettings:
    store: Kind
    """Where experts are loaded from: `disk` (past the page cache), `page_cache`, or `host` (a copy in memory)."""
    dtype: DType
    """Of all weights, in the store and in computation."""
    threads: PositiveInt
    """That read at once; with one, the thread that computes reads."""
    delay_ms: NonNegative
    """What every read takes longer than it does: what if memory were farther away?"""
    scope: Scope
    prefetch: Literal["none", "next_layer"]
    """What is loaded ahead of time: nothing, or the experts that the router of the next layer chooses from the input of
    this one. As many slots as a token has experts in a layer are for these."""
    policies: Annotated[tuple[PolicyName, ...], Field(min_length=1)]
    cache_ratios: tuple[Positive, ...]
    """Experts that fit, relative to those that one token activates in all layers."""
    cache_bytes: tuple[Bytes, ...]
    """More caches, by the bytes of their slots: a number, or a text such as 500MiB."""
    prompt_length: PositiveInt
    """Tokens that are read at once."""
    decode_length: PositiveInt
    """Tokens that follow one by one."""
    samples_per_domain: PositiveInt

    @property
    def num_tokens(self) -> int:
        return self.prompt_length + self.decode_length

    def slots_ahead(self, top_k: int) -> int:
        """Of each arm, for guesses."""
        return 0 if self.prefetch == "none" else top_k

    def arms(self, num_layers: int, num_experts: int, top_k: int, row_bytes: int) -> list[Arm]:
        """Every policy at every capacity, of which none is larger than all experts. `row_bytes`: of a slot. Raises
        `UserError` for caches that are too small to compute a layer."""
        active, ahead = num_layers * top_k, self.slots_ahead(top_k)
        least = (top_k if self.scope == "model" else active) + ahead
        guesses = f" and as many for offload.prefetch={self.prefetch}" if ahead else ""
        asked = [
            *((f"cache_ratios: {size:g}", round(size * active), f"{least / active:g}") for size in self.cache_ratios),
            *((f"cache_bytes: {size}", size // row_bytes, least * row_bytes) for size in self.cache_bytes),
        ]
        arms = []
        for given, capacity, enough in asked:
            if capacity < least:
                raise UserError(
                    f"offload.{given} holds {capacity} experts, but a layer needs {top_k} at once{guesses}; "
                    f"give at least {enough}"
                )
            slots = min(capacity, num_layers * num_experts + ahead)
            if self.scope == "layer":
                slots -= (slots - ahead) % num_layers
            arms += [Arm(policy, slots, slots / active) for policy in self.policies]
        return list(dict.fromkeys(arms))

    @model_validator(mode="after")
    def _check(self) -> OffloadSettings:
        if not self.cache_ratios and not self.cache_bytes:
            raise ValueError("offload.cache_ratios and offload.cache_bytes are both empty; give at least one size")
        return self

    def as_json(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
