"""What runs on a GPU does as on a CPU. `MOE_TOY_GPU=cpu` tries the code of these tests where there is none."""

import os

import jaxtyping
import pytest
import torch

from tests.model.conftest import make_config  # noqa: F401
from tests.reliability.conftest import cache, run  # noqa: F401


@pytest.fixture(scope="session")
def device() -> torch.device:
    name = os.environ.get("MOE_TOY_GPU", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(name)


@pytest.fixture(scope="session")
def on_device(device) -> list[str]:
    """Overrides of a run there, in bf16."""
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    return [f"trainer.accelerator={accelerator}", "trainer.precision=bf16-mixed", "check_devices=false"]


@pytest.fixture(autouse=True)
def unchecked():
    """The checks of shapes that tests put around functions are nothing that torch.compile sees through."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
