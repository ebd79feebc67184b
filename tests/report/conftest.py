"""Results to draw, made once: of a golden trace, and of a small synthetic model in three sizes."""

import pytest

from moe_toy.report.recommend import recommend
from moe_toy.results import Results
from tests.metrics.conftest import load_golden
from tests.report.make_results import results_of, synthetic_trace


@pytest.fixture(scope="session")
def golden_results() -> Results:
    return recommend(results_of(load_golden("sticky_e16k4").trace, "golden"))


@pytest.fixture(scope="session")
def small_results() -> Results:
    """Two layers of 8 experts, 2 active, on three domains, and a device to run on."""
    trace = synthetic_trace(layers=2, experts=8, top_k=2, domains=3, samples=2, seq=64)
    return recommend(results_of(trace, "small", token_count=2), bandwidth_gbps=2.0, expert_bytes=1e6, compute_ms=4.0)


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory, small_results):
    """Three folders as evaluations leave them."""
    folders = [tmp_path_factory.mktemp(name) for name in ("a", "b", "c")]
    small_results.save(folders[0])
    for folder, top_k, loss in ((folders[1], 1, 3.5), (folders[2], 4, 3.4)):
        trace = synthetic_trace(layers=2, experts=8, top_k=top_k, domains=3, samples=2, seq=64)
        results = results_of(trace, f"top {top_k}", token_count=2)
        results.summary["loss"] = loss
        results.save(folder)
    return folders
