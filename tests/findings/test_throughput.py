import numpy as np
import pytest
from pydantic import ValidationError

from moe_toy.errors import UserError
from moe_toy.findings.throughput import Device


def test_a_token_pays_for_its_misses():
    device = Device(bandwidth_gbps=10.0, expert_bytes=20e6, compute_ms=4.0)  # 2 ms to load an expert
    assert device.load_ms == pytest.approx(2)
    # 8 experts per token: none, half and all of them missed
    speeds = device.tokens_per_second(np.array([1.0, 0.5, 0.0]), experts_per_token=8)
    np.testing.assert_allclose(speeds, [1000 / 4, 1000 / 12, 1000 / 20])


def test_no_numbers_no_device():
    assert Device.from_options(bandwidth_gbps=None, expert_bytes=None, compute_ms=None) is None


def test_half_a_device_is_refused():
    with pytest.raises(UserError, match="expert_bytes, compute_ms is not set; throughput needs bandwidth_gbps"):
        Device.from_options(bandwidth_gbps=25.0, expert_bytes=None, compute_ms=None)


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_numbers_of_a_device_are_positive(value):
    with pytest.raises(ValidationError, match="compute_ms"):
        Device(bandwidth_gbps=25.0, expert_bytes=1e6, compute_ms=value)
