"""How every figure looks, and figures that show one of several choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.basedatatypes import BaseTraceType

BLUE, VERMILION, GREEN, PINK, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
"""Okabe and Ito: told apart by colour-blind readers; lines differ in dash or marker as well."""
POLICY = {
    "sch": {"color": BLUE, "dash": "solid"},
    "belady": {"color": GREEN, "dash": "dot"},
    "lru": {"color": VERMILION, "dash": "dash"},
    "lfu": {"color": PINK, "dash": "dashdot"},
}
INK, GRID = "#808080", "rgba(128, 128, 128, 0.25)"
"""Mid-tones for a figure on its own; the page replaces them by its colours for light or dark."""
DOTTED = {"color": INK, "width": 1, "dash": "dot"}
DIVERGING = [[0, "rgb(0, 88, 160)"], [0.5, "rgba(128, 128, 128, 0)"], [1, "rgb(200, 70, 0)"]]
"""Blue, nothing, vermilion: the middle shows the page, light or dark."""
SEQUENTIAL = [[0, "#1f63ad"], [0.5, "#8a9ba5"], [1, "#f2c14e"]]
"""Dark to light blue to yellow, with both ends off black and white."""
SHAPES = [("circle", "solid"), ("diamond", "dash"), ("square", "dot"), ("cross", "dashdot")]
SERIES = [
    {"color": colour, "symbol": symbol, "dash": dash}
    for colour, (symbol, dash) in zip([BLUE, VERMILION, GREEN, PINK, ORANGE, SKY] * 2, SHAPES * 3, strict=True)
]
"""Looks of twelve models side by side."""
TITLE = {"standoff": 8, "font": {"size": 13}}
AXIS = {
    "gridcolor": GRID,
    "linecolor": GRID,
    "zeroline": False,
    "automargin": True,
    "ticks": "",
}


def new_figure(*, x: str, y: str, height: int = 340) -> go.Figure:
    """An empty figure with titled axes on a transparent ground."""
    layout = {
        "template": "none",
        "height": height,
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
        "paper_bgcolor": "rgba(0, 0, 0, 0)",
        "plot_bgcolor": "rgba(0, 0, 0, 0)",
        "font": {"color": INK, "size": 13, "family": "system-ui, sans-serif"},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        "hoverlabel": {"align": "left"},
        "modebar": {"bgcolor": "rgba(0, 0, 0, 0)", "color": INK, "activecolor": BLUE},
        "xaxis": AXIS | {"title": TITLE | {"text": x}},
        "yaxis": AXIS | {"title": TITLE | {"text": y}},
    }
    return go.Figure(layout=layout)  # ten times as fast as updating an empty one


def add_choices(figure: go.Figure, label: str, choices: Mapping[str, Sequence[BaseTraceType]], first: int) -> None:
    """Add the traces of every choice, of which number `first` is seen; the page lets the reader choose another.

    Traces that are in the figure already belong to all choices.
    """
    for number, traces in enumerate(choices.values()):
        for trace in traces:
            figure.add_trace(trace.update(meta=number, visible=number == first))
    figure.update_layout(meta={"label": label, "choices": list(choices), "first": first})


def dotted_level(figure: go.Figure, value: float, text: str) -> None:
    """A thin dotted line across, with its meaning written below its right end."""
    label = {"text": text, "font": {"size": 11}}
    figure.add_hline(value, line=DOTTED, annotation=label, annotation_position="bottom right")


def dotted_mark(figure: go.Figure, value: float, text: str) -> None:
    """A thin dotted line upwards, with its meaning written beside its foot."""
    label = {"text": text, "font": {"size": 11}}
    figure.add_vline(value, line=DOTTED, annotation=label, annotation_position="bottom right")
