"""Pearson correlation that knows undefined values and constant sides."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

CONSTANT = 1e-7
"""A side with a smaller standard deviation counts as constant: what varies there is rounding."""


def pearson(x: Float64[Tensor, "*item"], y: Float64[Tensor, "*item"]) -> Float64[Tensor, ""]:
    """In [-1, 1], over the items defined on both sides; NaN with fewer than two of them or where a side is constant."""
    both = ~(x.isnan() | y.isnan())
    x, y = x[both], y[both]
    if len(x) < 2 or x.std() < CONSTANT or y.std() < CONSTANT:
        return torch.full((), torch.nan, dtype=torch.float64, device=x.device)
    x, y = x - x.mean(), y - y.mean()
    return ((x @ y) / (x.norm() * y.norm())).clamp(-1, 1)


def correlation_matrix(values: Float64[Tensor, " row *item"]) -> Float64[Tensor, "row row"]:
    """Pearson correlation of every pair of rows."""
    return torch.stack([torch.stack([pearson(x, y) for y in values]) for x in values])
