"""A recording of another program, from its file to tables and notes."""

import json

import numpy as np
import pytest

from moe_toy.evaluation.measure import measure
from moe_toy.evaluation.notebook import evaluate
from moe_toy.evaluation.settings import MetricSettings
from moe_toy.findings.recommend import recommend
from moe_toy.metrics import cache_hits
from moe_toy.report.html import write_report
from moe_toy.traces.foreign import import_traces
from moe_toy.traces.recording import Recording
from moe_toy.traces.trace_file import save_trace

LAYERS, K, EXPERTS = 2, 2, 6
QUICK = {"segment_lengths": (4, 16), "cache_stride": 1, "intervals": False}


@pytest.fixture
def recorded(tmp_path):
    """Two requests, of 30 and 10 tokens, the first eight of each the prompt."""
    draw = np.random.default_rng(0)
    rows = ["# n_expert=6", "turn,phase,step,layer,slot,expert"]
    for turn, tokens in enumerate((30, 10)):
        chosen = draw.random((tokens, LAYERS, EXPERTS)).argsort(-1)[..., :K]
        rows += [
            f"{turn},{int(t >= 8)},{t},{layer},{slot},{chosen[t, layer, slot]}"
            for t in range(tokens)
            for layer in range(LAYERS)
            for slot in range(K)
        ]
    (tmp_path / "chat.csv").write_text("\n".join(rows))
    return tmp_path / "chat.csv"


def test_tables_count_each_request_on_its_own(recorded):
    tables = evaluate(recorded, **QUICK)
    traces = import_traces(recorded, num_experts=None)
    counts = [
        cache_hits(
            trace.expert_ids,
            EXPERTS,
            policy="lru",
            scope="model",
            order="layer",
            cold="miss",
            prompt_lengths=trace.prompt_lengths,
        )
        for trace in traces
    ]
    hits, requests = (sum(count[i].sum(0)[0] for count in counts) for i in (0, 1))
    assert requests == (22 + 2) * LAYERS * K
    cache = tables["cache"].query("policy == 'lru' and order == 'layer'")
    np.testing.assert_allclose(cache[cache.domain.isna()].hit_rate, hits / requests)
    assert tables["nulls"].token.isna().all()
    assert set(tables["specialization"].kind) == {"domain"}
    assert not {"tokens", "text"} & set(tables)


def test_the_report_says_what_is_left_out_and_too_short(recorded, tmp_path):
    files = []
    for trace in import_traces(recorded, num_experts=None):
        files.append(tmp_path / f"{trace.sequence_length}.safetensors")
        save_trace(trace, files[-1])
    about = {"name": "chat", "target": "trace", "source": "chat.csv"}
    results = recommend(measure(Recording(files), MetricSettings(**QUICK), None, about))
    assert results.summary["notes"] == [
        "Token ids are unknown: vocabulary specialization, text and shuffling of equal tokens are left out.",
        "Hit rates are those of the answers; the prompts warm the caches.",
        "Sequences have 10 to 30 tokens.",
        "10 of 40 tokens lie in sequences shorter than a segment of 16.",
    ]
    text = write_report(results, tmp_path / "report").read_text()
    assert all(note in text for note in results.summary["notes"])
    json.dumps(results.summary, allow_nan=False)
