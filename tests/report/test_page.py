import json
import re

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from moe_toy.report.page import Section, data_block, figures, html_table, page, tiles

HOSTILE = "</script><script>alert(1)</script>&amp;\u2028"


def test_data_cannot_leave_its_script_and_comes_back_whole():
    block = data_block("reader", {"token": HOSTILE})
    assert block.count("</script>") == 1
    (text,) = re.findall(r'<script type="application/json">(.*)</script>', block, re.S)
    assert json.loads(text) == {"token": HOSTILE}


def test_figures_cannot_leave_their_script():
    figure = go.Figure(go.Scatter(x=[HOSTILE], y=[1]), layout={"height": 300})
    assert figures({HOSTILE: figure}).count("</script>") == 1


def test_labels_of_figures_are_no_tags_but_our_own_bold():
    figure = go.Figure(go.Scatter(x=["<i>a & b</i>"], y=["<b><a href='x'>c</a></b>"], name="<s>"))
    body = figures({"a": figure.update_layout(height=300)})
    (text,) = re.findall(r'<script type="application/json">(.*)</script>', body)
    (trace,) = json.loads(text)["data"]
    assert trace["x"] == ["&lt;i&gt;a &amp; b&lt;/i&gt;"]
    assert trace["y"] == ["<b>&lt;a href='x'&gt;c&lt;/a&gt;</b>"]
    assert trace["name"] == "&lt;s&gt;"


def test_a_caption_may_go_on_in_small_print():
    body = figures({"Hits | by <size>": go.Figure(layout={"height": 300})})
    assert "<figcaption>Hits<small>by &lt;size&gt;</small></figcaption>" in body


def test_figures_are_embedded_with_half_the_digits():
    figure = go.Figure(go.Scatter(x=np.arange(3), y=np.linspace(0, 1, 3)), layout={"height": 300})
    assert '"dtype":"f4"' in figures({"a": figure})


def test_text_is_escaped_everywhere():
    section = Section(title=HOSTILE, reading=HOSTILE, body="", note=HOSTILE)
    text = page(kicker=HOSTILE, title=HOSTILE, facts=HOSTILE, headline="", sections=[section], footer=HOSTILE)
    assert "<script>alert" not in text
    assert "<script>alert" not in tiles([(HOSTILE, HOSTILE, HOSTILE)])
    assert "<script>alert" not in html_table(pd.DataFrame({HOSTILE: [HOSTILE]}))


def test_a_page_needs_nothing_else():
    text = page(kicker="", title="t", facts="", headline="", sections=[], footer="")
    head = text[: text.index("<script>")]
    assert not re.findall(r'(?:src|href)="(?!data:|#)', head + text[text.rindex("</script>") :])
    assert len(text) < 8e6


def test_sections_are_linked():
    section = Section("Load balance", "how", "<p>body</p>")
    text = page(kicker="", title="t", facts="", headline="", sections=[section], footer="")
    assert '<a href="#load-balance">Load balance</a>' in text
    assert '<section id="load-balance">' in text


def test_tables_leave_undefined_cells_empty():
    table = html_table(pd.DataFrame({"model": ["a"], "srp": [0.12345], "loss": [None], "layers": [2]}))
    assert "<td>a</td><td class=number>0.123</td><td></td><td class=number>2</td>" in table
