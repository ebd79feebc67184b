"""The frame of a report: one HTML file that needs nothing else, and the safe way to put values into it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from moe_toy.files.atomic import save_atomically

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

REPORT = "report.html"
SCRIPTS = ("figures.js", "tokens.js", "text.js")
LABELS = ("name", "text", "x", "y", "customdata", "categoryarray")
"""Where names of domains, models and arms enter a figure."""


@dataclass(frozen=True)
class Section:
    title: str
    reading: str
    """How to read it, plain text."""
    body: str
    """HTML."""
    note: str = ""

    def html(self) -> str:
        note = f'<p class="note">{escape(self.note)}</p>' if self.note else ""
        return (
            f'<section id="{self.anchor}"><h2>{escape(self.title)}</h2>'
            f'<p class="reading">{escape(self.reading)}</p>{self.body}{note}</section>'
        )

    @property
    def anchor(self) -> str:
        return re.sub(r"\W+", "-", self.title.lower())


def write_page(out_dir: Path, **content: Any) -> Path:
    """Write `page(**content)` into `report.html`, at once or not at all."""
    out_dir.mkdir(parents=True, exist_ok=True)
    with save_atomically(out_dir / REPORT) as part:
        part.write_text(page(**content), encoding="utf-8")
    return out_dir / REPORT


def page(*, kicker: str, title: str, facts: str, headline: str, sections: Sequence[Section], footer: str) -> str:
    """The whole document. `headline` is HTML, the other strings are plain text."""
    from plotly.offline import get_plotlyjs  # 5 MB

    links = " ".join(f'<a href="#{section.anchor}">{escape(section.title)}</a>' for section in sections)
    return Template(_asset("page.html")).substitute(
        kicker=escape(kicker),
        title=escape(title),
        facts=escape(facts),
        headline=headline,
        links=links,
        sections="\n".join(section.html() for section in sections),
        footer=escape(footer),
        style=_asset("page.css"),
        plotly=get_plotlyjs(),
        script="\n".join(_asset(name) for name in SCRIPTS),
    )


def figures(shown: Mapping[str, go.Figure]) -> str:
    """Figures by caption, side by side where there is room. A caption may go on after " | " in small print."""
    return f'<div class="figures">{"".join(_figure(caption, figure) for caption, figure in shown.items())}</div>'


def _figure(caption: str, figure: go.Figure) -> str:
    for trace in figure.data:
        for name in ("x", "y", "z", "customdata"):
            values = getattr(trace, name, None)
            if getattr(values, "dtype", None) == "float64":
                trace[name] = None  # else plotly keeps the values, which are equal
                trace[name] = values.astype("float32")  # enough to draw, at half the size
    title, _, more = caption.partition(" | ")
    small = f"<small>{escape(more)}</small>" if more else ""
    content = json.loads(figure.to_json())
    for part in (*content["data"], content["layout"].get("xaxis", {}), content["layout"].get("yaxis", {})):
        part |= {key: plain(part[key]) for key in LABELS if key in part}
    height = int(figure.layout.height)
    return (
        f"<figure><figcaption>{escape(title)}{small}</figcaption>"
        f'<div class="plot" role="img" aria-label="{escape(title)}" style="min-height: {height}px">'
        f"{_script(json.dumps(content, ensure_ascii=False, separators=(',', ':')))}</div></figure>"
    )


def plain(label: Any) -> Any:
    """A label, or a list of them, that plotly shows as it is: it takes tags for formats and links. A bold one of ours
    stays bold."""
    if isinstance(label, list):
        return [plain(part) for part in label]
    if not isinstance(label, str):
        return label
    bold = re.fullmatch(r"<b>(.*)</b>", label, re.DOTALL)
    return f"<b>{escape(bold[1], quote=False)}</b>" if bold else escape(label, quote=False)


def data_block(class_name: str, data: object) -> str:
    """An element that a script of the page fills from `data`."""
    return f'<div class="{class_name}">{_script(json.dumps(data, ensure_ascii=False, separators=(",", ":")))}</div>'


def tiles(values: Sequence[tuple[str, str, str]]) -> str:
    """Large numbers, each with what it is and a line of detail."""
    return (
        '<dl class="tiles">'
        + "".join(
            f'<div class="tile"><dt>{escape(name)}</dt><dd><div class="value">{escape(value)}</div>'
            f'<div class="detail">{escape(detail)}</div></dd></div>'
            for name, value, detail in values
        )
        + "</dl>"
    )


def html_table(table: pd.DataFrame, decimals: int = 3) -> str:
    """Numbers to the right; empty where undefined."""
    import pandas as pd  # half a second

    def cell(value: object) -> str:
        if pd.isna(value):
            return "<td></td>"
        number = isinstance(value, int | float)
        text = f"{value:.{decimals}f}" if isinstance(value, float) else str(value)
        return f"<td{' class=number' if number else ''}>{escape(text)}</td>"

    head = "".join(f"<th>{escape(str(name))}</th>" for name in table.columns)
    rows = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in table.itertuples(index=False))
    return f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'


def _script(json_text: str) -> str:
    """JSON inside HTML: without "<" no text of it can end the element."""
    safe = json_text.replace("<", "\\u003c")
    return f'<script type="application/json">{safe}</script>'


def _asset(name: str) -> str:
    return (files("moe_toy.report") / "assets" / name).read_text(encoding="utf-8")
