"""The view of a W&B project, built and looked at without a network."""

import re
import subprocess
import sys

import pytest

from moe_toy.workspace.layout import CHARTS, build_workspace
from tests.callbacks.conftest import DOMAINS, subject  # noqa: F401 (a fixture)
from tests.callbacks.test_base import log_all
from tests.paths import ROOT


def test_every_chart_shows_something_that_runs_log(subject):  # noqa: F811
    logged = {*log_all(subject, 4, DOMAINS), "train/loss"}
    for shown in CHARTS.values():
        for title, keys in shown.items():
            found = [key for key in logged if re.match(keys, key)] if isinstance(keys, str) else logged & {*keys}
            assert len(found) >= (2 if isinstance(keys, str) else len(keys)), title


def test_the_view_has_our_sections_charts_and_grouping():
    pytest.importorskip("wandb_workspaces")
    spec = build_workspace("me", "mine")._to_model().model_dump()
    assert (spec["entity"], spec["project"]) == ("me", "mine")
    sections = spec["spec"]["section"]["panel_bank_config"]["sections"]
    assert [section["name"] for section in sections] == [*CHARTS]
    headlines = [panel["config"] for panel in sections[0]["panels"]]
    assert [config["metrics"] for config in headlines] == [*CHARTS["Headlines"].values()]
    assert {config["x_axis"] for config in headlines} == {"trainer/global_step"}
    assert "sweep_name" in str(spec["spec"]["section"]["run_sets"][0]["grouping"])


def test_without_an_account_it_is_one_line(tmp_path):
    pytest.importorskip("wandb_workspaces")
    command = [sys.executable, "-m", "moe_toy.workspace", "entity=me", "project=mine"]
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "NETRC": str(tmp_path / "netrc")}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: there is no W&B account; log in with `wandb login`, or set WANDB_API_KEY\n"
