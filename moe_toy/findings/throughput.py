"""From hit rates to tokens per second of a device that loads missing experts over a slow link."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass

from moe_toy.errors import UserError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ASSUMPTIONS = (
    "one sequence is decoded, token by token",
    "a token misses layers × experts per token × (1 − hit rate) experts",
    "each miss moves expert_bytes over a link of bandwidth_gbps (10⁹ bytes per second), one after another",
    "loading does not overlap with the compute_ms that a token takes when all experts are resident",
)


@dataclass(frozen=True)
class Device:
    """What loads and computes. `bandwidth_gbps`: gigabytes per second; `compute_ms`: per token, all experts there."""

    bandwidth_gbps: Positive
    expert_bytes: Positive
    compute_ms: Positive

    @staticmethod
    def from_options(**options: float | None) -> Device | None:
        """None without any number; raises `UserError` if only some are given."""
        missing = [name for name, value in options.items() if value is None]
        if len(missing) == len(options):
            return None
        if missing:
            raise UserError(f"{', '.join(missing)} is not set; throughput needs {', '.join(options)}, or none of them")
        return Device(**options)

    @property
    def load_ms(self) -> float:
        """To move one expert."""
        return self.expert_bytes / self.bandwidth_gbps / 1e6

    def tokens_per_second(
        self, hit_rate: Float[np.ndarray, " capacity"], experts_per_token: float
    ) -> Float[np.ndarray, " capacity"]:
        """`experts_per_token` counts all layers."""
        misses = experts_per_token * (1 - hit_rate)
        return 1000 / (self.compute_ms + misses * self.load_ms)
