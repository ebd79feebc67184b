"""The pages in a real browser: at two widths, with every control used once."""

import json
import re
import shutil
import subprocess

import pytest

from moe_toy.report.compare import write_comparison
from moe_toy.report.html import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = """
    --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --allow-file-access-from-files --enable-logging=stderr
    --virtual-time-budget=20000 --dump-dom
"""
WIDTHS = (1280, 390)
OBSERVE = """
addEventListener("load", () => setTimeout(() => {
  const seen = [...document.querySelectorAll("iframe")].map((frame) => {
    const page = frame.contentDocument;
    for (const select of page.querySelectorAll("select")) {
      select.selectedIndex = 0;
      select.dispatchEvent(new Event("change"));
    }
    page.querySelector(".passage span")?.dispatchEvent(new Event("click", { bubbles: true }));
    const plots = [...page.querySelectorAll(".plot")];
    return {
      viewport: page.documentElement.clientWidth,
      content: page.documentElement.scrollWidth,
      plots: plots.length,
      drawn: plots.filter((plot) => plot.querySelector(".js-plotly-plot .main-svg, .main-svg .plot")).length,
      widest: Math.max(...plots.map((plot) => plot.querySelector(".main-svg")?.getBoundingClientRect().right ?? 0)),
      selects: page.querySelectorAll("select").length,
      experts: page.querySelectorAll(".token-table tr").length,
      lit: page.querySelectorAll(".passage .lit").length,
      details: page.querySelector(".details")?.textContent ?? "",
    };
  });
  document.body.textContent = "seen:" + JSON.stringify(seen) + ":seen";
}, 3000));
"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium on the PATH")


@pytest.fixture(scope="module")
def browsed(small_results, evaluated, tmp_path_factory):
    """What the browser saw of the report and the comparison at each width, and what it logged."""
    folder = tmp_path_factory.mktemp("browser")
    pages = [write_report(small_results, folder / "one"), write_comparison(evaluated, folder / "many")]
    frames = "".join(
        f'<iframe src="{page.as_uri()}" style="width:{width}px;height:900px;border:0"></iframe>'
        for page in pages
        for width in WIDTHS
    )
    wrapper = folder / "wrapper.html"
    wrapper.write_text(f"<!doctype html><body>{frames}<script>{OBSERVE}</script></body>")
    done = subprocess.run(
        [BROWSER, *FLAGS.split(), f"--user-data-dir={folder / 'profile'}", wrapper.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    (seen,) = re.findall("seen:(.*):seen", done.stdout) or [pytest.fail(done.stderr)]
    names = [(name, width) for name in ("report", "comparison") for width in WIDTHS]
    return dict(zip(names, json.loads(seen), strict=True)), done.stderr


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["report", "comparison"])
def test_every_figure_is_drawn_inside_the_window(browsed, name, width):
    seen = browsed[0][name, width]
    assert seen["drawn"] == seen["plots"] > 5
    assert seen["content"] <= seen["viewport"] <= width
    assert seen["widest"] <= seen["viewport"]


def test_the_console_stays_silent(browsed):
    assert "CONSOLE" not in browsed[1]


def test_tokens_and_text_answer(browsed):
    seen = browsed[0]["report", 1280]
    assert seen["selects"] == 6  # heat map, specialization, tokens by layer and kind, text by passage and layer
    assert seen["experts"] > 0
    assert seen["lit"] > 0
    assert "at 0: experts, best first" in seen["details"]
