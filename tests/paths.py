"""Where the project's files are, seen from the tests."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf"
GOLDEN = ROOT / "tests" / "golden"
