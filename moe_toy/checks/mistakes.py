"""A mistake of the user's, told in one line by every entry point."""

import difflib
import errno
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from moe_toy.errors import EXIT_USER_ERROR, UserError

MISTAKES = (UserError, ValidationError, HydraException, OmegaConfBaseException)
OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
OF_THE_DISK |= {errno.ENOTDIR, errno.EEXIST, errno.EISDIR}  # a file where a directory should be, or the reverse
OF_THE_DISK |= {errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.ESTALE}
SECTIONS = {
    "DataConfig": "data",
    "MoEConfig": "moe",
    "ModelConfig": "model",
    "OptimizerConfig": "optimizer",
    "TrainerConfig": "trainer",
}
ALTERNATIVES = {"int", "float", "str"}


@contextmanager
def report_user_errors(output: str, keys: Callable[[], list[str]] = list) -> Iterator[None]:
    """End the process with one line on standard error and exit code 2 where the block raises a mistake of the user's or
    an error of the disk. Anything else keeps its traceback.

    `output` says where the command writes to, and `keys` gives all keys of its config, of which the nearest is named.
    """
    raises, logging.raiseExceptions = logging.raiseExceptions, False  # a log that a full disk cuts short stops nothing
    try:
        yield
    except KeyboardInterrupt:  # where there is nothing to save
        sys.exit(128 + signal.SIGINT)
    except (*MISTAKES, OSError, ValueError) as error:
        text = describe(error, output, keys)
        if text is None:
            raise
        print(f"error: {text}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    finally:
        logging.raiseExceptions = raises


def describe(error: Exception, output: str, keys: Callable[[], list[str]] = list) -> str | None:
    """The line for a mistake of the user's, whichever library found it, and for a disk that does not take or give what
    it should; None for a bug."""
    if isinstance(error, MISTAKES):
        return explain(error, sys.argv[1:], keys)
    cause = error if isinstance(error, OSError) else error.__cause__  # a log that cannot be opened is a ValueError
    if getattr(cause, "errno", None) not in OF_THE_DISK:
        return None
    place = cause.filename
    if place is not None and os.path.exists(place) and not os.access(place, os.R_OK):
        return f"cannot read {place} ({cause.strerror}); make it readable, or name another"
    place = place or "to the directory of the run"
    return f"cannot write {place} ({cause.strerror}); make room, or choose another {output}"


def report_job_errors(output: str) -> AbstractContextManager[None]:
    """The same around the body of a job, before which Hydra would put a line of its own; not where several jobs run,
    which are Hydra's to end."""
    alone = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.RUN
    return report_user_errors(output) if alone else nullcontext()


def mistake(error: UserError) -> str:
    """What it says; a data worker passes it on within a traceback."""
    return str(error).rpartition(f"{UserError.__name__}: ")[2]


def explain(error: Exception, arguments: list[str], keys: Callable[[], list[str]] = list) -> str:
    """One line for one mistake, whichever library found it."""
    text = str(error)
    place = re.search(r"full_key: (\S+)", text)  # where in the config Hydra was when it built something
    for cause in causes(error):
        if isinstance(cause, ValidationError):
            return "; ".join(explain_validation(cause, place[1] if place else SECTIONS.get(cause.title, "")))
        if isinstance(cause, UserError):
            return one_line(mistake(cause))
        if isinstance(cause, OverrideParseException):
            return one_line(
                f"{cause.override}: not an override that Hydra can read; write key=value, lists as 'key=[1,2]', and a "
                "value that holds = or , as \"key='VALUE'\""
            )
    if match := re.search(r"Could not override '(.+?)'|Key '(.+?)' is not in struct", text):
        return explain_unknown_key(match[1] or match[2], arguments, keys())
    if match := re.search(r"Interpolation key '(.+?)' not found", text):
        group = match[1].partition(".")[0]
        chosen = next((argument for argument in arguments if argument.startswith(f"{group}=")), f"{group}=")
        return one_line(f"{chosen} has no {match[1]}, for which others ask; choose another {group}=, or add it")
    text = re.sub(r"\s*full_key: \S*|\s*object_type=\S*|Set the environment variable HYDRA_FULL_ERROR.*", "", text)
    return one_line(re.sub(r"\n\t", " ", text))


def explain_validation(error: ValidationError, section: str) -> Iterator[str]:
    """pydantic's list of findings, each as `section.key: rule, given value`."""
    for finding in error.errors():
        # pydantic adds the name of the alternative, such as `int`, where a value may be of several types.
        names = [str(part) for part in finding["loc"] if str(part).isidentifier() and part not in ALTERNATIVES]
        key = ".".join([section, *names] if section else names)
        rule = finding["msg"].removeprefix("Value error, ")
        if finding["type"] == "value_error":
            yield one_line(rule)
        elif finding["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            yield f"{key}: no such key; remove it"
        elif finding["type"] in ("missing", "missing_keyword_only_argument"):
            yield f"{key}: is missing; give it a value"
        else:
            rule = rule[0].lower() + rule[1:]
            yield one_line(f"{key}: {rule}, given {finding['input']!r}; pass {key}=... with such a value")


def explain_unknown_key(key: str, arguments: list[str], keys: list[str]) -> str:
    given = next((argument for argument in arguments if argument.startswith(key)), key)
    nearest = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}?" if nearest else "see `--cfg job` for all keys"
    return f"{key}: no such key (given {given}); {hint}"


def known_keys(config_dir: Path, config: str) -> list[str]:
    with initialize_config_dir(str(config_dir), version_base="1.3"):
        return flat_keys(OmegaConf.to_container(compose(config), resolve=False))


def flat_keys(config: object, prefix: str = "") -> list[str]:
    if not isinstance(config, dict):
        return []
    keys = []
    for key, value in config.items():
        keys += [f"{prefix}{key}", *flat_keys(value, f"{prefix}{key}.")]
    return keys


def causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def one_line(text: str) -> str:
    return " ".join(text.split())
