"""`torch.compile` cannot see through the checks of shapes that tests put around functions, so these run without."""

import subprocess
import sys
from pathlib import Path

from tests.paths import ROOT

TESTS = Path(__file__).with_name("unchecked_compiled_blocks.py")


def test_compiled_blocks():
    command = [sys.executable, "-m", "pytest", "-o", "addopts=-q --import-mode=importlib --show-capture=no", str(TESTS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
