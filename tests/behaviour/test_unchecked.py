"""`torch.compile` cannot see through the checks of shapes that tests put around functions, so its tests run without."""

import subprocess
import sys

from tests.paths import ROOT

FILES = sorted((ROOT / "tests" / "unchecked").glob("compiled_*.py"))


def test_compilation():
    command = [sys.executable, "-m", "pytest", "-o", "addopts=-q --import-mode=importlib --show-capture=no"]
    done = subprocess.run([*command, *FILES], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
