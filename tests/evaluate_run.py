"""evaluate.py in this process, from overrides to results."""

from pathlib import Path

from hydra import compose, initialize_config_dir

import evaluate
from moe_toy.evaluation import command
from moe_toy.results import Results
from tests.paths import CONF

QUICK = ["metrics.segment_lengths=[4,16]", "metrics.cache_stride=1", "metrics.intervals=false", "threads=1"]


def run_evaluation(out_dir: Path, *overrides: str) -> Results:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("evaluate", [*overrides, f"out_dir={out_dir}"])
    command.check(cfg)
    command.prepare(cfg)
    evaluate.main.__wrapped__(cfg)
    return Results.load(out_dir)
