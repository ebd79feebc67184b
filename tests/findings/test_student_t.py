import math

import pytest

from moe_toy.findings.student_t import cumulative, mean_interval, quantile


@pytest.mark.parametrize(
    ("freedom", "expected"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042), (1000, 1.962)],
)
def test_quantiles_are_those_of_printed_tables(freedom, expected):
    assert quantile(0.975, freedom) == pytest.approx(expected, abs=5e-4)


def test_one_and_two_degrees_of_freedom_have_closed_forms():
    assert cumulative(3.0, 1) == pytest.approx(0.5 + math.atan(3.0) / math.pi)
    assert cumulative(3.0, 2) == pytest.approx(0.5 + 3.0 / (2 * math.sqrt(2 + 9.0)))


def test_the_interval_of_three_values_by_hand():
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    assert (mean, low, high) == pytest.approx((2.0, 2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), abs=1e-4)


def test_a_single_value_says_nothing_about_spread():
    assert mean_interval([0.4]) == (0.4, -math.inf, math.inf)
