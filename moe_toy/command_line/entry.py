"""How `train.py` and `evaluate.py` start: arguments that Hydra can read, and one line for a mistake."""

import gc
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from hydra.core.override_parser.types import Quote, QuotedString

from moe_toy.checks.mistakes import known_keys, report_user_errors
from moe_toy.errors import UserError

PLAIN = re.compile(r"[\w/\\+.$%*@?|: \t-]*", re.ASCII)  # what Hydra's grammar reads without quotes
STRUCTURE = set("'\"()[]{}=,")  # what has a meaning in it
NUMBER = re.compile(r"[+-]?[\d._]+(e[+-]?\d+)?", re.IGNORECASE)
TEXT_KEYS = ("name", "sweep_name")
"""Their values stay text where YAML would read a number such as 2024_01 or 1.10."""
DASHED_KEY = re.compile(r"--([\w@/]+(\.[\w@/]+)*=.*)", re.DOTALL)
HYDRA_OPTIONS = {"config-name", "config-path", "config-dir", "experimental-rerun", "package", "cfg", "info"}


def run_app(main: Callable[[], None], config_dir: Path, config: str, output: str) -> None:
    """Call Hydra's `main`. A mistake of the user's is one line on standard error and exit code 2; everything else keeps
    its traceback. `output` says, in the words of the user, where the command writes to.

    Garbage is not collected until `main` says so, which does when all is imported: what modules make stays, and to look
    through it again and again takes a fifth of the time of their import."""
    gc.disable()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra re-raises, so that we can tell mistakes from bugs
    with report_user_errors(output, keys=lambda: known_keys(config_dir, config)):
        sys.argv[1:] = [quote(argument) for argument in sys.argv[1:]]
        main()


def quote(argument: str) -> str:
    """`key=VALUE` with quotes where Hydra would not take a path as it is: if it has letters such as `ü`, or is there
    and holds what is a list elsewhere, as the names of runs do. `~` is the user's home, as in a shell."""
    if (dashed := DASHED_KEY.fullmatch(argument)) and dashed[1].partition("=")[0] not in HYDRA_OPTIONS:
        raise UserError(f"{argument}: keys have no dashes; write {dashed[1]}")
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise UserError(f"{argument!r}: not UTF-8; rename the file or folder that it names") from None
    key, equals, value = argument.partition("=")
    value = os.path.expanduser(value)
    is_structure = set(value) & STRUCTURE and not os.path.exists(value)
    is_number = key in TEXT_KEYS and NUMBER.fullmatch(value)
    if argument.startswith("-") or is_structure or (PLAIN.fullmatch(value) and not is_number):
        return f"{key}{equals}{value}"
    return f"{key}={in_quotes(value)}"


def in_quotes(value: str) -> str:
    """As Hydra's grammar reads any text."""
    return QuotedString(value, Quote.single).with_quotes()
