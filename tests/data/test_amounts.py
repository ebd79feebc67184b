"""How often a run sees each token."""

import pytest

from moe_toy.data.amounts import log_times_seen, times_seen
from moe_toy.data.order import BLOCK, TrainingOrder


def test_every_sequence_is_seen_as_often_as_the_order_draws_it():
    order = TrainingOrder(seed=0, sizes=[100, 1000, 7], weights=[1, 2, 0])
    drawn = [order[i][0] for i in range(3 * BLOCK)]
    expected = [drawn.count(domain) / size for domain, size in enumerate(order.sizes)]
    assert times_seen(order, 3 * BLOCK) == pytest.approx(expected)
    assert times_seen(order, 3 * BLOCK)[2] == 0


def test_small_domains_are_told_of_where_they_repeat(caplog):
    sizes = {"small": 9, "a": 100, "b": 100}
    with caplog.at_level("INFO"):
        log_times_seen({"small": 11.1, "a": 1.0, "b": 0.123}, sizes)
    assert "Each token is seen: small 11 times, a 1 times, b 0.12 times" in caplog.text
    assert "small: less than a tenth of the text of other domains" in caplog.text
    caplog.clear()
    log_times_seen({"small": 0.9, "a": 0.1, "b": 0.1}, sizes)
    log_times_seen({"small": 11.1, "a": 1.0, "b": 0.1}, sizes | {"small": 11})
    assert "less than a tenth" not in caplog.text
