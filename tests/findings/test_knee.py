import numpy as np
import pytest

from moe_toy.errors import UserError
from moe_toy.findings.knee import find_knee, gain_over_chance

CAPACITY = np.arange(1, 6)
CURVE = np.array([0.55, 0.8, 0.9, 0.95, 1.0])  # gain over chance of five items: 0.35 0.4 0.3 0.15 0


def test_gain_is_the_distance_to_the_chord():
    np.testing.assert_allclose(gain_over_chance(CAPACITY, CURVE, 5), [0.35, 0.4, 0.3, 0.15, 0])


@pytest.mark.parametrize(("share", "capacity"), [(1.0, 2), (0.9, 2), (0.8, 1)])
def test_the_knee_is_the_smallest_capacity_with_the_share_of_the_gain(share, capacity):
    knee = find_knee(CAPACITY, CURVE, 5, share)
    assert knee.capacity == capacity
    assert knee.hit_rate == CURVE[capacity - 1]
    assert knee.greatest_gain == pytest.approx(0.4)


def test_the_order_of_capacities_does_not_matter():
    assert find_knee(CAPACITY[::-1], CURVE[::-1], 5, 0.8) == find_knee(CAPACITY, CURVE, 5, 0.8)


def test_a_curve_of_random_experts_has_no_knee():
    assert find_knee(CAPACITY, CAPACITY / 5, 5) is None


def test_an_empty_curve_has_no_knee():
    assert find_knee(CAPACITY[:0], CURVE[:0], 5) is None


def test_the_knee_of_the_papers_baseline_is_about_its_rule():
    ratio = np.array([0, 0.5, 1, 1.5, 2, 2.5, 3, 4, 8])
    sch = np.array([0, 0.257, 0.419, 0.543, 0.638, 0.720, 0.784, 0.873, 1])  # read from its plot: 64 experts, 8 active
    capacity = np.arange(1, 513)
    knee = find_knee(capacity, np.interp(capacity / 64, ratio, sch), 512)
    assert 1.9 < knee.capacity / 64 < 2.1


@pytest.mark.parametrize("share", [0.0, 1.5, float("nan")])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(UserError, match="share must be above 0 and at most 1"):
        find_knee(CAPACITY, CURVE, 5, share)
