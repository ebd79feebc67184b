"""What measured decoding of several models says about their consistency."""

import math
import runpy

import numpy as np
import pandas as pd
import pytest

from moe_toy.errors import UserError
from moe_toy.findings.foretelling import correlation_interval, decoded_arms, foretell
from moe_toy.results import Results
from tests.paths import ROOT

STALLS = {"a": 4.0, "b": 3.0, "c": 2.5, "d": 1.0, "collapsed": 0.5}


def evaluation(arm: str, number: int, store: str) -> Results:
    """Two layers, three active experts; waiting falls as SRP rises."""
    srp = 0.3 + 0.1 * number
    row = {
        "policy": "lru",
        "cache_ratio": 2.0,
        "domain": None,
        "hit_rate": srp,
        "bytes_per_token": 1e6,
        "predicted_ms": 9,
    }
    row |= {"stall_ms": STALLS[arm], "compute_ms": 4.0, "management_ms": 1.0, "ms_per_token": 5.0 + STALLS[arm]}
    resident = row | {"policy": "resident", "ms_per_token": 4.0}
    scores = {"level": "model", "segment_length": [4, 16], "domain": None, "srp": [0.9, srp]}
    summary = {"name": f"arm={arm},seed=1", "top_k": 3, "layer_ids": [0, 1]}
    return Results(
        summary | {"offload": {"store": store, "computes": True, "row_bytes": 4096}},
        {
            "srp": pd.DataFrame(scores),
            "offload": pd.DataFrame([resident, row, row | {"domain": "web", "stall_ms": 99}]),
        },
    )


def evaluations() -> list[Results]:
    return [evaluation(arm, number, store) for store in ("disk", "host") for number, arm in enumerate(STALLS)]


def test_an_arm_is_set_beside_its_own_resident_model():
    row = decoded_arms([evaluation("a", 0, "disk")]).iloc[0]
    assert (row.arm, row.store, row.active_experts, row["srp@16"], row.row_kib) == ("a", "disk", 6, 0.3, 4)
    assert row.overhead == pytest.approx(9 / 4 - 1)
    assert row.stall_us_per_expert == pytest.approx(4000 / 6)


def test_an_interval_is_fishers():
    """r = .8 of ten: atanh(.8) = 1.0986, 1.96 / sqrt(7) = .7408."""
    x = np.array([-1.0, 1] * 5)
    noise = np.array([-1.0, -1, 1, 1, -1, -1, 1, 1, 0, 0])
    noise *= 0.75 * math.sqrt((x**2).sum() / (noise**2).sum())
    assert correlation_interval(list(x), list(x + noise)) == pytest.approx((0.8, 0.3433, 0.9507), abs=1e-3)


def test_correlations_are_of_each_store_with_and_without_an_arm():
    found = foretell(decoded_arms(evaluations()), without=["collapsed"]).set_index(["store", "x", "y", "without"])
    whole = found.loc[("disk", "srp@16", "stall_ms", "")]
    assert whole.arms == 5
    assert whole.r == pytest.approx(np.corrcoef(range(5), list(STALLS.values()))[0, 1])
    assert whole.ci_low < whole.r < whole.ci_high < 0
    assert found.loc[("host", "srp@16", "stall_ms", "collapsed")].arms == 4
    assert ("disk", "srp@16", "mb_per_token", "") not in found.index  # equal in all arms


def test_a_hit_rate_that_is_equal_everywhere_foretells_nothing():
    """A cache that holds all experts hits always; this ended in a traceback."""
    arms = decoded_arms(evaluations()).assign(hit_rate=1.0)
    assert set(foretell(arms).x) == {"srp@16"}
    unknown = arms.assign(overhead=arms.overhead.where(arms.arm != "a"))
    found = foretell(unknown).set_index(["store", "y"])
    assert found.arms["disk", "overhead"] == 4
    assert -1 < found.ci_low["disk", "overhead"] < found.ci_high["disk", "overhead"] < 1


def test_an_evaluation_that_decoded_nothing_or_has_other_segments_is_refused():
    plain = evaluation("a", 0, "disk")
    with pytest.raises(UserError, match="arm=a,seed=1 has no measured decoding"):
        decoded_arms([Results(plain.summary | {"offload": {}}, plain.tables)])
    short = plain.tables | {"srp": plain.tables["srp"].head(1)}
    with pytest.raises(UserError, match="add 16 to"):
        decoded_arms([Results(plain.summary, short)])


def test_the_picture_is_drawn_from_the_committed_table_too(tmp_path):
    script = runpy.run_path(str(ROOT / "docs" / "draw_offload.py"))
    table = tmp_path / "arms.csv"
    decoded_arms(evaluations()).to_csv(table, index=False)
    script["main"]([str(table)])
    assert table.with_suffix(".png").stat().st_size > 10_000
    assert (tmp_path / "arms_correlations.csv").is_file()
    arms = pd.read_csv(table)
    figure = script["draw"](arms, foretell(arms))
    labels = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert [label.split(" (")[0] for label in labels] == ["disk: r = -0.99", "host: r = -0.99"]
    with pytest.raises(SystemExit) as stop:
        script["main"]([])
    assert stop.value.code == 2
