"""What Liang et al. 2025 (arXiv 2505.16056) found: numbers for context, their groups of models and their advice.

SRP, SCH and losses are read from the published plots (+-0.001 for SRP and loss, +-0.004 for hit rates), LRU hit rates
of the toy models from a saved output of their notebooks. SCH and groups are at segments of 16 tokens; losses compare
within a study only, since tokenizers differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

SEGMENT_LENGTH = 16
"""Of the groups, of the domain bars and of the SCH that the paper quotes."""
CACHE_RATIO = 2.0
"""The advice: hold twice the active experts."""
READING = (
    "The 20 published models and the ten toy models of the paper. SRP depends on how many of how many experts are "
    "active, so models with equal numbers compare best."
)
PRECISION = "Read from the paper's plots, ±0.001 for SRP, ±0.004 for SCH. Bounds of G2 to G4 are ours."
CREDIT = "Figures of the paper are from Liang et al. 2025, arXiv 2505.16056, read from its plots."
GROUPS = {"G1": 0.50, "G2": 0.42, "G3": 0.34, "G4": 0.0}
"""Least SRP over 16 tokens. The paper names G1 above 0.50, G2 around 0.48, G3 around 0.37 and G4 below 0.31; the
bounds between the last three are ours, midway between the neighbouring models of its plots (0.453 | 0.386 and
0.368 | 0.314). It draws GRIN-MoE, read as 0.504, in G2."""


def numbers() -> pd.DataFrame:
    """One row per model: study (toy, published), its group in the paper, sizes, SRP, loss and hit rates by ratio."""
    import pandas as pd  # half a second

    with (files("moe_toy.report") / "assets" / "paper.csv").open() as text:
        return pd.read_csv(text)


def group(srp: float) -> str:
    """The group whose SRP over 16 tokens this is."""
    return next(name for name, least in GROUPS.items() if srp >= least)


def nearest_length(lengths: Iterable[int]) -> int:
    """The segment length measured that is closest to the paper's; the shorter of two."""
    return min(lengths, key=lambda length: (abs(length - SEGMENT_LENGTH), length))


PARAMETERS = 1_427_070_208
"""Total parameters of the paper's baseline, as `experiment=paper` counts them; the other toy models are like it."""
ARM_OF_MODEL = {
    "Baseline": "baseline",
    "FewerExp": "32expert",
    "ActMore": "top16",
    "ActFewer": "top2",
    "1ShrExp": "share1",
    "2ShrExp": "share2",
    "DenseFst": "skip1",
    "DenseHlf": "sparse2",
    "NoLB": "nolb",
    "OverLB": "overlb",
}
"""The toy models by their name in the plots, and by the keys of the paper's code, which `arm=` takes."""


def as_sweep() -> pd.DataFrame:
    """SRP of the ten toy models as the results of a sweep of one seed: `arm`, `seed`, `num_experts`, `top_k`,
    `total_parameters` and the SRP of each segment length that was read."""
    table = numbers().set_index("model").loc[list(ARM_OF_MODEL)]
    srp = table.filter(regex=r"^srp_\d+$").rename(columns=lambda name: name.replace("srp_", "consistency/srp@"))
    sizes = table[["num_experts", "top_k"]].assign(seed=1, total_parameters=PARAMETERS)
    return sizes.join(srp).rename(index=ARM_OF_MODEL).rename_axis("arm").reset_index()
