"""Heat maps as pictures for loggers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

COLUMNS = 2


def expert_by_domain(
    activation_rate: Float[Tensor, "domain layer expert"], domains: Sequence[str], layer_ids: Sequence[int]
) -> Figure:
    """One panel per layer: how much more (red) or less (blue) than evenly each domain uses each expert.

    Experts are ordered by the domain that uses them most, so that specialists line up as blocks on the diagonal.
    Colours are log2 of the activation rate over top_k / num_experts, cut at a factor of 8.
    """
    rows = math.ceil(len(layer_ids) / COLUMNS)
    figure = Figure(figsize=(6.5 * COLUMNS, 0.8 + (0.6 + 0.17 * len(domains)) * rows), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False)
    for axis in axes.flat[len(layer_ids) :]:
        axis.remove()
    panels = list(axes.flat[: len(layer_ids)])
    for axis, layer, rates in zip(panels, layer_ids, activation_rate.cpu().unbind(1), strict=True):
        relative = (rates / rates.mean(-1, keepdim=True)).log2().clamp(-3, 3)
        known = rates.nan_to_num(0.0)  # a domain without text has no rates
        home = known.argmax(0) * 2 - known.amax(0)  # by domain, strongest first
        picture = axis.imshow(
            relative[:, torch.argsort(home)].numpy(),
            cmap="RdBu_r",
            vmin=-3,
            vmax=3,
            aspect="auto",
            interpolation="none",
        )
        axis.set_title(f"layer {layer}", fontsize=9)
        axis.set_yticks(range(len(domains)), domains, fontsize=7)
        axis.set_xticks([])
        axis.set_xlabel("experts", fontsize=8)
    colorbar = figure.colorbar(picture, ax=panels, ticks=[-3, -1, 0, 1, 3], shrink=0.8)
    colorbar.ax.set_yticklabels(["1/8", "1/2", "even", "2x", "8x"])
    return figure
