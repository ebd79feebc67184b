"""metrics.csv of a continued run."""

import pandas as pd

from moe_toy.runs.metrics_file import MetricsFile


def test_rows_that_follow_stand_under_their_columns_whatever_order_these_had(tmp_path):
    (tmp_path / "metrics.csv").write_text("train/lr,step,train/loss\n0.1,0,5.0\n0.2,1,4.0\n")
    logger = MetricsFile(str(tmp_path), keep_rows=2)
    logger.log_metrics({"train/loss": 3.0, "train/lr": 0.3}, step=2)
    logger.save()
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table[["step", "train/loss", "train/lr"]].to_numpy().tolist() == [[0, 5, 0.1], [1, 4, 0.2], [2, 3, 0.3]]
