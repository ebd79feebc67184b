"""Parts of a run out of its config."""

import torch
from hydra import compose, initialize_config_dir
from torch import nn

from moe_toy.locality.base import LocalityScheme
from moe_toy.training.build import build_model
from tests.paths import CONF
from tests.small_run import EIGHT_EXPERTS, SMALL


class Learned(LocalityScheme):
    """A scheme of a user's own, with parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3, 3)


def test_what_a_part_draws_changes_no_weight_of_the_others():
    places = ["run_dir=nowhere", "name=test", *SMALL, *EIGHT_EXPERTS]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        configs = [compose("train", [*places, *more]) for more in ([], [f"locality._target_={__name__}.Learned"])]
    models = []
    for config in configs:
        torch.manual_seed(0)
        models.append(build_model(config).state_dict())
    assert all(torch.equal(models[1][name], weight) for name, weight in models[0].items())
