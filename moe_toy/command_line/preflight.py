"""What is wrong with a job is found before it has a directory, in whatever way Hydra starts it."""

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from moe_toy.checks.mistakes import report_user_errors

EXIT_BUG = 1
UNDECIDED = "not yet known"


class Preflight(Callback):
    """Before a single run has a directory, takes its config through each of `stages`, functions by their dotted names.

    Hydra makes a warning of what a callback raises, so a mistake leaves with exit code 2 here, after its line, and a
    bug with exit code 1, after its traceback. Jobs of a multirun are checked by the sweeper, before the first starts.
    """

    def __init__(self, stages: Sequence[str], output: str) -> None:
        self.stages, self.output = stages, output

    def on_run_start(self, config: DictConfig, **kwargs: object) -> None:
        try:
            with report_user_errors(self.output):
                run_stages(self.stages, [resolve_job(config, _run_directory(config))])
        except Exception:
            traceback.print_exc()
            sys.exit(EXIT_BUG)


def run_stages(stages: Iterable[str], configs: Sequence[DictConfig]) -> None:
    """Take every config through the first stage, then through the second, and so on."""
    for name in stages:
        stage: Callable[[DictConfig], None] = get_method(name)
        for config in configs:
            stage(config)


def resolve_job(config: DictConfig, directory: str | None) -> DictConfig:
    """The values that a job will see, without Hydra's own. `config` is what Hydra composed for it, and `directory` its
    own, or None where that is not decided yet."""
    with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
        config.hydra.runtime.output_dir = os.path.abspath(directory) if directory else UNDECIDED
    with _known_to_resolvers(config):
        task = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
        return OmegaConf.create(OmegaConf.to_container(task, resolve=True))


def _run_directory(config: DictConfig) -> str | None:
    """None where what it is made of has no value, which the first stage tells better."""
    try:
        return resolve_key(config, "hydra.run.dir")
    except OmegaConfBaseException:
        return None


def resolve_key(config: DictConfig, key: str) -> str:
    """One value of a config that Hydra composed for a job."""
    with _known_to_resolvers(config):
        return str(OmegaConf.select(config, key))


@contextmanager
def _known_to_resolvers(config: DictConfig) -> Iterator[None]:
    """`${hydra:...}` reads what Hydra says of the running job, and none runs yet."""
    hydra = HydraConfig.instance()
    before = hydra.cfg
    hydra.set_config(config)
    try:
        yield
    finally:
        hydra.cfg = before
