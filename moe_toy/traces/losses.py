"""The losses that traces bring along in `source`, of a domain over all traces that hold text of it."""

from __future__ import annotations

from typing import NamedTuple

from moe_toy.routing import RoutingTrace

LOSS, BITS_PER_BYTE = "loss", "bits_per_byte"


class Losses:
    def __init__(self) -> None:
        self._parts: dict[str, list[_Part]] = {}

    def add(self, trace: RoutingTrace) -> None:
        losses, bits = (trace.source.get(name) or {} for name in (LOSS, BITS_PER_BYTE))
        for domain in dict.fromkeys([*losses, *bits]):
            part = _Part(_count_targets(trace, domain), losses.get(domain), bits.get(domain))
            self._parts.setdefault(domain, []).append(part)

    def by_domain(self) -> dict[str, dict[str, float | None]]:
        """`loss` in nats per token and `bits_per_byte`, each by domain; None where a part does not know it."""
        return {
            LOSS: {domain: _loss(parts) for domain, parts in self._parts.items()},
            BITS_PER_BYTE: {domain: _bits_per_byte(parts) for domain, parts in self._parts.items()},
        }


class _Part(NamedTuple):
    """What one trace says of a domain."""

    targets: int
    loss: float | None
    bits_per_byte: float | None


def _loss(parts: list[_Part]) -> float | None:
    if len(parts) == 1:
        return parts[0].loss
    targets = sum(part.targets for part in parts)
    known = targets and all(part.loss is not None for part in parts)
    return sum(part.targets * part.loss for part in parts) / targets if known else None


def _bits_per_byte(parts: list[_Part]) -> float | None:
    """Of all bytes, whose number follows from both losses of a part."""
    if len(parts) == 1:
        return parts[0].bits_per_byte
    if not all(part.targets and part.loss and part.bits_per_byte for part in parts):
        return None
    nats = [part.targets * part.loss for part in parts]
    return sum(nats) / sum(of / part.bits_per_byte for of, part in zip(nats, parts, strict=True))


def _count_targets(trace: RoutingTrace, domain: str) -> int:
    """Tokens of a domain that have one before them; of the whole trace where it has no domain of this name."""
    names = [str(name) for name in trace.domains]
    its_own = trace.domain_ids is not None and domain in names
    sequences = int((trace.domain_ids == names.index(domain)).sum()) if its_own else trace.num_sequences
    return sequences * (trace.sequence_length - 1)
