"""Between Hydra and our entry points: mistakes are found before a run directory exists, and told in one line."""

import difflib
import errno
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from moe_toy.command_line.jobs import compose_sweep, jobs
from moe_toy.errors import EXIT_USER_ERROR, UserError

MISTAKES = (UserError, ValidationError, HydraException, OmegaConfBaseException)
NOT_WRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
NOT_WRITABLE |= {errno.ENOTDIR, errno.EEXIST, errno.EISDIR}  # a file where a directory should be, or the reverse
NOT_WRITABLE |= {errno.ENAMETOOLONG, errno.ELOOP}
SECTIONS = {
    "DataConfig": "data",
    "MoEConfig": "moe",
    "ModelConfig": "model",
    "OptimizerConfig": "optimizer",
    "TrainerConfig": "trainer",
}
NOT_WRITTEN = {  # by config: what to do
    "train": "hydra.run.dir; what was saved before is intact, and ckpt_path=auto continues from it",
    "evaluate": "out_dir; what was there is intact",
}
PLAIN = re.compile(r"[\w/\\+.$%*@?|: \t-]*", re.ASCII)  # what Hydra's grammar reads without quotes
STRUCTURE = set("'\"()[]{}=,")  # what has a meaning in it
ALTERNATIVES = {"int", "float", "str"}
INFORMATION_FLAGS = {"--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion"}


def run_checked(
    main: Callable[[], None], stages: Sequence[Callable[[DictConfig], None]], config_dir: Path, config: str
) -> None:
    """Take the config of every job on the command line through each of `stages`, then hand over to Hydra's `main`.

    A mistake of the user's is one line on standard error and exit code 2; everything else keeps its traceback. A sweep
    goes through with its unfinished arms only, and leaves with exit code 1 if one of them is not done in the end.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra re-raises, so that we can tell mistakes from bugs
    sys.argv[1:] = arguments = [quoted(argument) for argument in sys.argv[1:]]
    try:
        if any(argument.split("=")[0] in INFORMATION_FLAGS for argument in arguments):
            return main()
        with initialize_config_dir(str(config_dir), version_base="1.3"):
            configs = [compose(config, overrides) for overrides in jobs(arguments)]
            sweep = compose_sweep(config, arguments) if configs[0].get("sweep_name") else None
        if sweep is not None:
            sweep.check()
            configs = [OmegaConf.create(arm.config) for arm in sweep.unfinished]
        for stage in stages:
            for cfg in configs:
                stage(cfg)
        if sweep is None:
            return main()
        if configs:
            sweep.show()
            sys.argv.append(sweep.naming)
            main()
        sys.exit(sweep.conclude(config_dir / "claims.yaml"))
    except KeyboardInterrupt:  # where there is nothing to save
        sys.exit(128 + signal.SIGINT)
    except MISTAKES as error:
        print(f"error: {explain(error, arguments, config_dir, config)}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except (OSError, ValueError) as error:  # a log file that cannot be opened is a ValueError because of an OSError
        cause = error if isinstance(error, OSError) else error.__cause__
        if getattr(cause, "errno", None) not in NOT_WRITABLE:
            raise
        print(f"error: {explain_not_writable(cause, config)}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Around the body of `main`: Hydra would put a line of its own before a mistake. Where several jobs run, they are
    Hydra's to end."""
    raises, logging.raiseExceptions = logging.raiseExceptions, False  # a log that a full disk cuts short stops nothing
    try:
        yield
    except (UserError, OSError) as error:
        is_mistake = isinstance(error, UserError) or error.errno in NOT_WRITABLE
        if not is_mistake or not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.RUN:
            raise
        config = HydraConfig.get().job.config_name
        text = one_line(mistake(error)) if isinstance(error, UserError) else explain_not_writable(error, config)
        print(f"error: {text}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    finally:
        logging.raiseExceptions = raises


def mistake(error: UserError) -> str:
    """What it says; a data worker passes it on within a traceback."""
    return str(error).rpartition(f"{UserError.__name__}: ")[2]


def quoted(argument: str) -> str:
    """`key=VALUE` with quotes where Hydra would not take a path as it is: if it has letters such as `ü`, or is there
    and holds what is a list elsewhere, as the names of runs do. `~` is the user's home, as in a shell."""
    key, equals, value = argument.partition("=")
    value = os.path.expanduser(value)
    is_structure = set(value) & STRUCTURE and not os.path.exists(value)
    if argument.startswith("-") or is_structure or PLAIN.fullmatch(value):
        return f"{key}{equals}{value}"
    return f"{key}={QuotedString(value, Quote.single).with_quotes()}"


def explain(error: Exception, arguments: list[str], config_dir: Path, config: str) -> str:
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
        return explain_unknown_key(match[1] or match[2], arguments, known_keys(config_dir, config))
    text = re.sub(r"\s*full_key: \S*|\s*object_type=\S*|Set the environment variable HYDRA_FULL_ERROR.*", "", text)
    return one_line(re.sub(r"\n\t", " ", text))


def explain_not_writable(error: OSError, config: str) -> str:
    place = error.filename or "to the directory of the run"
    return f"cannot write {place} ({error.strerror}); make room, or choose another {NOT_WRITTEN[config]}"


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
