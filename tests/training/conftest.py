"""The trainer that callbacks are tried with, and whole runs."""

from tests.callbacks.conftest import recorder, trainer  # noqa: F401
from tests.reliability.conftest import cache, run  # noqa: F401
