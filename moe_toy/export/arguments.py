"""Command lines of the form `key=value key=value`, all of whose keys are needed."""

import difflib
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from moe_toy.checks.mistakes import report_user_errors
from moe_toy.errors import UserError


def run(command: Callable[..., None], module: str, meaning: str, keys: Mapping[str, str]) -> None:
    """Call `command(key=path, ...)` with the paths on the command line of `python -m module`.

    `keys` says what each path is. A mistake of the user's is one line on standard error and exit code 2.
    """
    usage = f"python -m {module} " + " ".join(f"{key}=..." for key in keys)
    if {"--help", "-h"} & set(sys.argv[1:]):
        sys.stdout.write("\n".join([meaning, "", f"  {usage}", "", *(f"{k:12}{v}" for k, v in keys.items()), ""]))
        return
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with report_user_errors("folder"):
        command(**parse(sys.argv[1:], keys, usage))


def parse(arguments: list[str], keys: Mapping[str, str], usage: str) -> dict[str, Path]:
    given = {}
    for argument in arguments:
        key, separator, value = argument.partition("=")
        if not separator or not value:
            raise UserError(f"{argument}: not of the form key=value; write {usage}")
        if key not in keys:
            nearest = difflib.get_close_matches(key, keys, n=1) or [" and ".join(keys)]
            raise UserError(f"{key}: no such key (given {argument}); did you mean {nearest[0]}?")
        given[key] = Path(value)
    for key, meaning in keys.items():
        if key not in given:
            raise UserError(f"{key}: is missing; give {key}=..., {meaning}")
    return given
