"""A few seconds of what `make soak` does for hours."""

import pandas as pd
import pytest

from tests.reliability.soak import Soak, exit_code, soak
from tests.small_run import EIGHT_EXPERTS, SMALL


def test_training_for_a_while_leaks_no_files_and_is_measured(texts, cache, tmp_path):
    places = [f"data.source.path={texts}", f"data.root={cache}", "logger=csv"]
    found = soak(tmp_path / "run", 0.05, [*SMALL, *EIGHT_EXPERTS, *places, "trainer.val_check_interval=10"])
    validations = pd.read_csv(tmp_path / "run" / "metrics.csv")["val/loss"].count()
    assert validations > 2
    assert found.more_files() <= 0
    assert 10 < found.looks.memory.max() < 5000
    assert found.throughput_kept() > 0


def test_growth_and_slowing_down_are_seen():
    looks = pd.DataFrame(
        {"seconds": range(100), "memory": [500 + t / 30 for t in range(100)], "files": [9] * 90 + [12] * 10}
    )
    leaky = Soak(looks, pd.Series([100.0] * 50 + [90.0] * 50))
    assert leaky.memory_growth() == pytest.approx(2.0)
    assert leaky.more_files() == 3
    assert leaky.throughput_kept() == pytest.approx(0.9)
    assert (exit_code(leaky, 10), exit_code(leaky, 1)) == (1, 0)  # a minute cannot tell
