"""Errors of the system while a file of the user's is read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moe_toy.errors import UserError


class UnreadableError(UserError):
    """The system does not give what a file holds; of damage in it this says nothing."""


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Raise `UnreadableError` where the system does not let the block read `path`; that it is not there passes on.

    Libraries raise `OSError` without a number for what they find damaged, which passes on too.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno is None:
            raise
        place = error.filename or path
        raise UnreadableError(
            f"cannot read {place} ({os.strerror(error.errno)}); make it readable, or name another"
        ) from error
