"""Shared test set-up: text for runs, results to draw, commands that end in this process."""

import logging
import os
import re
import subprocess
import sys
from contextlib import contextmanager

import hydra
import pytest
import yaml

import hydra_plugins.moe_toy.sweeper  # noqa: F401  before Hydra does, which tells of what beartype warns of
from moe_toy.command_line.entry import run_app
from moe_toy.findings.recommend import recommend
from moe_toy.results import Results
from tests.metrics.conftest import load_golden
from tests.paths import CONF
from tests.report.make_results import results_of, synthetic_trace
from tests.small_run import write_texts

yaml.SafeLoader = yaml.CSafeLoader
"""Every command reads forty files of conf/, and the tests give some thousand."""
LOG_LINE = re.compile(r"\d\d:\d\d:\d\d INFO ")


@pytest.hookimpl(trylast=True)  # when it is known which tests are chosen
def pytest_collection_modifyitems(config, items):
    """Tests of the real corpus come last; where it is not there yet, it is fetched and made beside the others."""
    items.sort(key=lambda item: item.get_closest_marker("corpus") is not None)
    chosen = items and items[-1].get_closest_marker("corpus") and not config.option.collectonly
    if chosen and os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0":
        command = [sys.executable, "-m", "moe_toy.corpus"]  # tests that find it failed try for themselves
        making = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        config.add_cleanup(making.wait)
        config.add_cleanup(making.terminate)


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """A folder of two domains."""
    folder = tmp_path_factory.mktemp("texts")
    write_texts(folder)
    return folder


@pytest.fixture(scope="session")
def golden_results() -> Results:
    return recommend(results_of(load_golden("sticky_e16k4").trace, "golden"))


@pytest.fixture(scope="session")
def small_results() -> Results:
    """Two layers of 8 experts, 2 active, on three domains, and a device to run on."""
    trace = synthetic_trace(layers=2, experts=8, top_k=2, domains=3, samples=2, seq=64)
    return recommend(results_of(trace, "small", token_count=2), bandwidth_gbps=2.0, expert_bytes=1e6, compute_ms=4.0)


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory, small_results):
    """Three folders as evaluations leave them."""
    folders = [tmp_path_factory.mktemp(name) for name in ("a", "b", "c")]
    small_results.save(folders[0])
    for folder, top_k, loss in ((folders[1], 1, 3.5), (folders[2], 4, 3.4)):
        trace = synthetic_trace(layers=2, experts=8, top_k=top_k, domains=3, samples=2, seq=64)
        results = results_of(trace, f"top {top_k}", token_count=2)
        results.summary["loss"] = loss
        results.save(folder)
    return folders


@contextmanager
def logging_restored():
    """Hydra's handlers write to the standard output of now, and its level is lower than that of tests."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def never(cfg=None):
    raise AssertionError("a job went on although its config is wrong")


@pytest.fixture
def command(monkeypatch):
    """`command("train", "-m", "seed=1,2", main=train.main)`: the exit code of an entry point. Without `main` it must
    never get as far as its first job."""

    def run(name: str, *arguments: str, main=None) -> int | str | None:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        main = main or hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)(never)
        try:
            with logging_restored():
                run_app(main, CONF, name, "place")
        except SystemExit as stop:
            return stop.code
        return 0

    return run


@pytest.fixture
def refusal(command, monkeypatch, tmp_path, capsys):
    """`refusal("train", "moe.top_k=9")`: the one line that a command answers with, having changed nothing."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: str) -> str:
        before = sorted(str(path) for path in tmp_path.rglob("*"))
        assert command(name, *arguments) == 2
        captured = capsys.readouterr()
        assert all(LOG_LINE.match(line) for line in captured.out.splitlines())
        assert captured.err.startswith("error: ")
        assert captured.err.count("\n") == 1
        assert sorted(str(path) for path in tmp_path.rglob("*")) == before
        return captured.err

    return run
