"""A model that is compiled as a whole has the gradients of one that is not."""

from moe_toy.locality.residency import Residency
from moe_toy.model.config import ModelConfig, MoEConfig
from tests.behaviour.test_invariance import distance, make_model, two_steps
from tests.locality import test_base
from tests.model.conftest import MODEL, MOE

CONFIG = ModelConfig(**MODEL | {"num_layers": 1}, moe=MoEConfig(**MOE))
BACKEND = "aot_eager_decomp_partition"
"""Traces, differentiates and decomposes as the default does, without most of a minute of a C++ compiler."""


def test_of_a_balancing_scheme():
    plain, compiled = (two_steps(make_model(CONFIG, "exact"), 2, backend) for backend in (None, BACKEND))
    assert distance(plain, compiled) < 1e-11


def test_of_a_limit():
    def make():
        return test_base.make_model(CONFIG, Residency(swaps=1), **test_base.EXACT)

    plain, compiled = (two_steps(make(), 2, backend) for backend in (None, BACKEND))
    assert distance(plain, compiled) < 1e-11
