"""Draws docs/metrics.svg from a small routing trace: `python docs/draw_metrics.py`."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Rectangle

from moe_toy.metrics import cache_hits, segment_scores
from moe_toy.metrics.activation import activation_mask, segment_counts, segment_histogram

EXPERTS, TOP_K, SEQ, SEGMENT, START = 8, 2, 24, 6, 9
BLUE, ORANGE, GREY = "#2f6db3", "#e07b1a", "#b9c0c8"


def routing() -> torch.Tensor:
    """One sequence whose topic changes twice; a topic favours three experts."""
    generator = torch.Generator().manual_seed(5)
    taste = torch.rand(1, 1, SEQ, EXPERTS, generator=generator)
    for first, last, favourites in ((0, 8, [1, 2, 5]), (8, 17, [0, 3, 6]), (17, SEQ, [2, 4, 7])):
        taste[0, 0, first:last, favourites] += 0.55
    return taste.argsort(-1, descending=True)[..., :TOP_K]


def draw_trace(ax: plt.Axes, expert_ids: torch.Tensor) -> None:
    active = activation_mask(expert_ids, EXPERTS)[0, 0]
    for t, e in active.nonzero().tolist():
        inside = START <= t < START + SEGMENT
        ax.add_patch(Rectangle((t - 0.42, e - 0.42), 0.84, 0.84, color=BLUE if inside else GREY))
    for shift in (0, 1, 2):
        y = -0.95 - 0.38 * shift
        ax.plot([START + shift - 0.5, START + shift + SEGMENT - 0.5], [y, y], color=ORANGE, lw=2.5, clip_on=False)
    ax.text(START + SEGMENT + 2.0, -1.35, "the next two segments,\none token apart", va="center", fontsize=8)
    ax.add_patch(Rectangle((START - 0.5, -0.5), SEGMENT, EXPERTS, fill=False, ec=ORANGE, lw=2))
    ax.set(xlim=(-0.6, SEQ - 0.4), ylim=(EXPERTS - 0.4, -2.1), xlabel="token", ylabel="expert", yticks=range(EXPERTS))
    ax.set_title(f"1  Each token activates {TOP_K} of {EXPERTS} experts; slide a segment of {SEGMENT} tokens over them")


def draw_segment(ax: plt.Axes, uses: torch.Tensor, threshold: int) -> None:
    colors = [BLUE if u >= threshold else GREY for u in uses.tolist()]
    ax.barh(range(EXPERTS), uses, color=colors)
    ax.axvline(threshold - 0.5, color=ORANGE, ls="--")
    ax.text(threshold - 0.4, EXPERTS - 0.55, f"t = {threshold}", color=ORANGE, va="top")
    ax.set(ylim=(EXPERTS - 0.1, -0.6), yticks=range(EXPERTS), xlabel="uses in the marked segment", ylabel="expert")
    ax.set_title("2  A segment router takes, for all its tokens,\nthe experts used at least t times (blue)")


def draw_scores(ax: plt.Axes, histogram: torch.Tensor, threshold: int, srp: float) -> None:
    uses = torch.arange(SEGMENT + 1)
    matched = (histogram * uses).flip(0).cumsum(0).flip(0)
    predicted = SEGMENT * histogram.flip(0).cumsum(0).flip(0)
    ax.plot(uses, 2 * matched / (predicted + matched[0]), "o-", color=GREY)
    ax.plot([threshold], [srp], "o", color=ORANGE, ms=9)
    ax.annotate(f"SRP = {srp:.2f}", (threshold, srp), (threshold - 0.3, srp + 0.06), color=ORANGE)
    ax.set(ylim=(0, 1), xlabel="threshold t", ylabel="F1 against the real router")
    ax.set_title("3  Over all segments and experts,\nthe best t gives SRP")


def draw_caches(ax: plt.Axes, expert_ids: torch.Tensor) -> None:
    for policy, color, label in (("sch", ORANGE, "SCH"), ("belady", GREY, "Belady"), ("lru", BLUE, "LRU")):
        hits, requests = cache_hits(expert_ids, EXPERTS, policy=policy, segment_length=SEGMENT)
        ax.plot(torch.arange(1, EXPERTS + 1) / TOP_K, hits[0, 0] / requests[0, 0], "o-", color=color, label=label)
    ax.set(ylim=(0, 1.03), xlabel="cache ratio: experts held / experts per token", ylabel="hit rate")
    ax.legend(frameon=False)
    ax.set_title("4  A cache of experts hits more\nthe more local the routing is")


def main() -> None:
    plt.rcParams.update({"font.size": 9, "axes.titlesize": 9.5, "axes.titlelocation": "left", "svg.hashsalt": "moe"})
    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    expert_ids = routing()
    histogram = segment_histogram(expert_ids, EXPERTS, SEGMENT, pool_experts=True)[0, 0, 0]
    scores = segment_scores(histogram)
    threshold = int(scores.threshold)
    figure = plt.figure(figsize=(10, 6.4), layout="constrained")
    axes = figure.subplot_mosaic([["trace"] * 3, ["segment", "scores", "caches"]])
    draw_trace(axes["trace"], expert_ids)
    draw_segment(axes["segment"], segment_counts(expert_ids, EXPERTS, SEGMENT)[0, 0, START], threshold)
    draw_scores(axes["scores"], histogram, threshold, float(scores.srp))
    draw_caches(axes["caches"], expert_ids)
    figure.savefig(Path(__file__).with_name("metrics.svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
