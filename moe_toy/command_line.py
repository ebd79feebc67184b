"""Between Hydra and our entry points: mistakes are found before a run directory exists, and told in one line."""

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from moe_toy.errors import UserError
from moe_toy.jobs import compose_sweep, jobs

EXIT_USER_ERROR = 2
SECTIONS = {"MoEConfig": "moe", "ModelConfig": "model", "OptimizerConfig": "optimizer"}
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
    known_keys: list[str] = []
    try:
        if any(argument.split("=")[0] in INFORMATION_FLAGS for argument in arguments):
            return main()
        with initialize_config_dir(str(config_dir), version_base="1.3"):
            known_keys = flat_keys(OmegaConf.to_container(compose(config), resolve=False))
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
    except (UserError, ValidationError, HydraException, OmegaConfBaseException) as error:
        print(f"error: {explain(error, arguments, known_keys)}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)


def quoted(argument: str) -> str:
    """`key=PATH` with quotes around a path that is there, for it may hold `=` and `,`, as run directories do."""
    key, _, value = argument.partition("=")
    return f"{key}='{value}'" if set(value) & set("=,") and "'" not in value and Path(value).exists() else argument


def explain(error: Exception, arguments: list[str], known_keys: list[str]) -> str:
    """One line for one mistake, whichever library found it."""
    text = str(error)
    place = re.search(r"full_key: (\S+)", text)  # where in the config Hydra was when it built something
    for cause in causes(error):
        if isinstance(cause, ValidationError):
            return "; ".join(explain_validation(cause, place[1] if place else SECTIONS[cause.title]))
        if isinstance(cause, UserError):
            return one_line(str(cause))
    if "See https://hydra.cc" in text:
        return f"{' '.join(arguments)}: not an override that Hydra can read; write key=value, lists as 'key=[1,2]'"
    if match := re.search(r"Could not override '(.+?)'|Key '(.+?)' is not in struct", text):
        return explain_unknown_key(match[1] or match[2], arguments, known_keys)
    text = re.sub(r"\s*full_key: \S*|\s*object_type=\S*|Set the environment variable HYDRA_FULL_ERROR.*", "", text)
    return one_line(re.sub(r"\n\t", " ", text))


def explain_validation(error: ValidationError, section: str) -> Iterator[str]:
    """pydantic's list of findings, each as `section.key: rule, given value`."""
    for finding in error.errors():
        key = ".".join([section, *(str(part) for part in finding["loc"])])
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


def explain_unknown_key(key: str, arguments: list[str], known_keys: list[str]) -> str:
    given = next((argument for argument in arguments if argument.startswith(key)), key)
    nearest = difflib.get_close_matches(key, known_keys, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}?" if nearest else "see `--cfg job` for all keys"
    return f"{key}: no such key (given {given}); {hint}"


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
