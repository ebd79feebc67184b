"""A model that is compiled as a whole, with a balancing scheme and a limit, has the gradients of one that is not."""

from moe_toy.locality.residency import Residency
from moe_toy.model.config import ModelConfig, MoEConfig
from tests.behaviour.test_invariance import distance, two_steps
from tests.locality import test_base
from tests.model.conftest import MODEL, MOE

CONFIG = ModelConfig(**MODEL | {"num_layers": 1}, moe=MoEConfig(**MOE))
BACKEND = "aot_eager_decomp_partition"
"""Traces, differentiates and decomposes as the default does, without most of a minute of a C++ compiler."""


def test_a_model_compiled_as_a_whole():
    def make():
        return test_base.make_model(CONFIG, Residency(swaps=1), **test_base.EXACT)

    plain, compiled = (two_steps(make(), 2, backend) for backend in (None, BACKEND))
    assert distance(plain, compiled) < 1e-11
