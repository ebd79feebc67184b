"""The section about decoding with experts in slow memory."""

import pytest
import torch

from moe_toy.balance.base import LoadBalancer
from moe_toy.model.config import ModelConfig, MoEConfig
from moe_toy.model.transformer import MoETransformer
from moe_toy.offload.measure import Measurement
from moe_toy.offload.settings import OffloadSettings
from moe_toy.offload.tables import tables_of
from moe_toy.report.html import write_report
from moe_toy.report.offload import measured_section
from moe_toy.results import Results
from tests.model.conftest import MODEL, MOE
from tests.offload.test_prediction import SETTINGS


@pytest.fixture(scope="module", params=["none", "next_layer"])
def results(request, small_results, tmp_path_factory):
    config = ModelConfig(**MODEL, moe=MoEConfig(**MOE))
    model = MoETransformer(config, LoadBalancer(num_layers=2, num_experts=8))
    texts = {name: [torch.randint(50, (16,))] for name in ("<b>code", "text")}
    changes = {"policies": ["lru", "random"], "delay_ms": 0.5, "prefetch": request.param}
    settings = OffloadSettings(**SETTINGS | changes)
    tables, facts = tables_of(Measurement(model, texts, settings, tmp_path_factory.mktemp("offload")))
    return Results(small_results.summary | {"offload": facts}, small_results.tables | tables)


def test_it_is_left_out_where_nothing_was_decoded(small_results):
    assert measured_section(small_results) is None


def test_it_shows_every_arm_and_says_how_it_was_measured(results, tmp_path):
    prefetch = results.summary["offload"]["prefetch"]
    html = measured_section(results).html()
    assert html.count("<tr><td>LRU</td>") == html.count("<tr><td>Random</td>") == 2
    assert html.count("<tr><td>Resident</td>") == 1
    assert "0.5 ms were added to every read" in html
    assert "1 sequence of each domain" in html
    assert ("The prediction is off by" in html) == (prefetch == "none")
    assert ("loaded ahead, into slots" in html) == ("MB ahead per token" in html) == (prefetch == "next_layer")
    assert "16 experts of 4 KiB (float32), 1 reader thread," in html
    assert "in a file that the page cache of the system holds" in html
    for caption in ("Time of a token", "Tokens per second", "What the time is spent on", "Hit rate", "By domain"):
        assert f"<figcaption>{caption}" in html
    assert "<b>code" not in html
    page = write_report(results, tmp_path).read_text()
    assert '<section id="measured">' in page


def test_one_domain_needs_no_comparison(results):
    table = results.tables["offload"]
    only = table[table.domain.isna() | (table.domain == "text")]
    html = measured_section(Results(results.summary, results.tables | {"offload": only})).html()
    assert "By domain" not in html
