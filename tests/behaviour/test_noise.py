"""What a run prints: only lines that a user can act on or wants to know, each of them on this list."""

import logging
import os
import re
import subprocess
import sys

from moe_toy.training.process_state import process_restored
from moe_toy.training.session import quieten
from tests.paths import ROOT
from tests.small_run import EIGHT_EXPERTS, SMALL

LINES = [
    r"Training a tokenizer of 300 tokens on fruit, numbers",
    r"Tokenising (fruit|numbers)",
    r"Tokenised [\d.]+ M tokens in [\d.]+ s",
    r"[\d.]+M parameters \([\d.]+M active\): 2 layers, 2 of them MoE with 8 routed experts, top 2, 0 shared",
    r"Each token is seen: fruit [\d.]+ times, numbers [\d.]+ times",
    r"the 2 steps are fewer than trainer.log_every_n_steps=10: none of them is logged, only validations",
    r"finished step 2: val/loss [\d.]+, val/bits_per_byte [\d.]+, consistency/srp@16 [\d.]+, load/cv [\d.]+, "
    r"specialization/domain [\d.]+",
    r"run directory: \S+",
    r"  (curves.png|metrics.csv|strongest_tokens.csv|config.yaml|tokenizer.json|text.json|checkpoints|wandb) +[\w`].*",
]


def test_every_line_of_a_short_run_is_on_the_list(texts, tmp_path):
    places = [f"data.source.path={texts}", f"data.root={tmp_path / 'cache'}", f"hydra.run.dir={tmp_path / 'run'}"]
    command = [sys.executable, ROOT / "train.py", *SMALL, *EIGHT_EXPERTS, *places, "trainer.max_steps=2"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "PYTHONWARN"))}
    done = subprocess.run(
        [*command, "trainer.log_every_n_steps=10"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))
    printed = [re.sub(r"^\d\d:\d\d:\d\d INFO ", "", line) for line in (done.stdout + done.stderr).splitlines()]
    assert len(printed) > 10
    assert [line for line in printed if not any(re.fullmatch(known, line) for known in LINES)] == []


def test_which_gpu_is_used_is_not_said_before_each_validation():
    with process_restored():
        logging.getLogger("lightning.pytorch").setLevel(logging.INFO)
        quieten()
        assert not logging.getLogger("lightning.pytorch.accelerators.cuda").isEnabledFor(logging.INFO)
