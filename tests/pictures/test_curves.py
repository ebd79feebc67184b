import warnings

import pandas as pd
import pytest

from moe_toy.errors import UserError
from moe_toy.pictures.curves import draw_curves, save_curves

METRICS = pd.DataFrame(
    {
        "step": [0, 5, 10],
        "val/loss": [8.0, None, 4.0],
        "train/loss": [None, 6.0, 5.0],
        "consistency/srp@16": [0.5, None, 0.4],
        "consistency/srp@16/domain/books": [0.5, None, 0.4],
        "consistency/srp@16/domain/my code": [0.6, None, 0.3],
        "specialization/domain/layer_00": [0.5, None, 0.9],
        "other": [1, 2, 3],
    }
)


def test_each_panel_shows_the_points_that_were_measured():
    loss, srp, balance, _, by_domain, by_layer = draw_curves(METRICS).axes
    points = {line.get_label(): line.get_xydata().tolist() for line in loss.lines}
    assert points == {"training": [[5, 6.0], [10, 5.0]], "validation": [[0, 8.0], [10, 4.0]]}
    assert [line.get_label() for line in srp.lines] == ["16 tokens"]
    assert not balance.lines
    assert [line.get_label() for line in by_domain.lines] == ["books", "my code"]
    assert [line.get_label() for line in by_layer.lines] == ["layer 00"]


def test_curves_are_saved_beside_the_numbers(tmp_path):
    METRICS.to_csv(tmp_path / "metrics.csv", index=False)
    assert save_curves(tmp_path).read_bytes().startswith(b"\x89PNG")


def test_a_run_without_numbers_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no metrics.csv in"):
        save_curves(tmp_path)


@pytest.mark.parametrize(("number", "named"), [(24, True), (300, False)])
def test_hundreds_of_domains_leave_room_for_their_curves(number, named):
    domains = {f"consistency/srp@16/domain/domain {i} of a long name": [0.5, None, 0.4] for i in range(number)}
    figure = draw_curves(METRICS[["step", "val/loss"]].assign(**domains))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of matplotlib, when there is no room
        figure.draw_without_rendering()
    by_domain = figure.axes[4]
    assert len(by_domain.lines) == number
    assert (by_domain.get_legend() is not None) == named
    assert by_domain.get_title() == "SRP over 16 tokens, by domain" + ("" if named else " (300 lines)")
    assert by_domain.get_position().width > 0.1
