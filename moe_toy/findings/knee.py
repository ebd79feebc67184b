"""Where a hit-rate curve bends: from there on, another cached expert buys little."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from moe_toy.errors import UserError

SHARE = 0.95
"""Of the greatest gain. On the published curves of the paper's baseline this gives about its own advice, 2x."""
NO_GAIN = 0.01
"""A curve that never rises further above chance has no knee: what is left is noise."""


@dataclass(frozen=True)
class Knee:
    capacity: int
    hit_rate: float
    gain: float
    """Hit rate beyond chance at `capacity`."""
    greatest_gain: float
    """Of the whole curve."""


def gain_over_chance(
    capacity: Integer[np.ndarray, " capacity"], hit_rate: Float[np.ndarray, " capacity"], num_items: int
) -> Float[np.ndarray, " capacity"]:
    """Hit rate minus that of a cache of random items, which is the chord from (0, 0) to (num_items, 1)."""
    return hit_rate - capacity / num_items


def find_knee(
    capacity: Integer[np.ndarray, " capacity"],
    hit_rate: Float[np.ndarray, " capacity"],
    num_items: int,
    share: float = SHARE,
) -> Knee | None:
    """The smallest capacity whose gain over chance is at least `share` of the greatest gain; None without a gain.

    With `share=1` this is the knee of Kneedle (Satopaa et al. 2011) without smoothing: the point farthest from the
    chord, where one more item pays just 1 / num_items. The top is flat, so a share below 1 saves much memory for few
    misses.
    """
    if not 0 < share <= 1:
        raise UserError(f"share must be above 0 and at most 1, not {share}; 0.95 asks for 95 % of the greatest gain")
    gain = gain_over_chance(capacity, hit_rate, num_items)
    if not len(gain) or gain.max() < NO_GAIN:
        return None
    reached = np.flatnonzero(gain >= share * gain.max())
    at = reached[capacity[reached].argmin()]
    return Knee(int(capacity[at]), float(hit_rate[at]), float(gain[at]), float(gain.max()))
