"""The same trainer that callbacks are tried with."""

from tests.callbacks.conftest import recorder, trainer  # noqa: F401
