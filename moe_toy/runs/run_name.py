"""The name of a run: what it changes, safe as a folder. Importing this gives configs the resolver `name_of`."""

import hashlib
import re

from omegaconf import OmegaConf

NAME_LENGTH = 120


def run_name(override_dirname: str) -> str:
    """A short name that is safe as a folder: what a run changes, or `default`."""
    name = re.sub(r"[^\w=.,+-]+", "-", override_dirname).strip("-.")
    if len(name) > NAME_LENGTH:  # what is cut off may be all that tells two runs apart
        digest = hashlib.sha256(override_dirname.encode()).hexdigest()[:8]
        name = f"{name[: NAME_LENGTH - 9]}-{digest}"
    return name or "default"


OmegaConf.register_new_resolver("name_of", run_name, replace=True)
