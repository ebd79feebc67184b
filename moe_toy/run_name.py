"""The name of a run: what it changes, safe as a folder. Importing this gives configs the resolver `name_of`."""

import re

from omegaconf import OmegaConf

NAME_LENGTH = 120


def run_name(override_dirname: str) -> str:
    """A short name that is safe as a folder: what a run changes, or `default`."""
    name = re.sub(r"[^\w=.,+-]+", "-", override_dirname).strip("-.")
    return name[:NAME_LENGTH] or "default"


OmegaConf.register_new_resolver("name_of", run_name, replace=True)
