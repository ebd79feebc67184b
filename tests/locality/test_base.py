"""Locality within a model: nothing without a scheme, and the same gradients however a step is split."""

import pytest
import torch

from moe_toy.balance.auxiliary import AuxiliaryLoss
from moe_toy.locality.adjacent import Adjacent
from moe_toy.locality.base import LocalityScheme
from moe_toy.locality.contrast import Contrast
from moe_toy.model.transformer import MoETransformer
from tests.behaviour.test_invariance import BATCH, SEQ, VOCAB, distance, two_steps
from tests.model.conftest import make_config  # noqa: F401 (a fixture)


def make_model(config, locality, **balance) -> MoETransformer:
    torch.manual_seed(0)
    sizes = {"num_layers": len(config.moe_layers), "num_experts": config.moe.num_experts}
    return MoETransformer(config, AuxiliaryLoss(coefficient=1.0, **balance, **sizes), locality).double()


def test_no_scheme_adds_nothing(make_config):  # noqa: F811
    tokens = torch.randint(VOCAB, (BATCH, SEQ), generator=torch.Generator().manual_seed(1))
    plain, none, contrast = (
        make_model(make_config(), locality, scope="micro_batch")(tokens)
        for locality in (None, LocalityScheme(), Contrast(coefficient=0.5, segment_length=2))
    )
    assert plain.aux_loss == none.aux_loss != contrast.aux_loss
    assert plain.aux_terms.keys() == none.aux_terms.keys() == contrast.aux_terms.keys() - {"locality_contrast"}


EXACT = {"scope": "global_batch", "estimate": "exact"}


@pytest.mark.parametrize("scheme", [Contrast(coefficient=0.5, segment_length=4), Adjacent(coefficient=0.5)])
def test_splitting_a_step_changes_nothing_where_balance_is_exact(make_config, scheme):  # noqa: F811
    whole, split = (two_steps(make_model(make_config(), scheme, **EXACT), parts) for parts in (1, 4))
    assert distance(whole, split) < 1e-11
    without = two_steps(make_model(make_config(), None, **EXACT), 1)
    assert distance(whole, without) > 1e-4


def test_the_contrast_of_micro_batches_depends_on_the_split(make_config):  # noqa: F811
    scheme = Contrast(coefficient=0.5, segment_length=4)
    whole, split = (two_steps(make_model(make_config(), scheme, scope="micro_batch"), parts) for parts in (1, 4))
    assert distance(whole, split) > 1e-4


def test_a_scheme_leaves_no_trace_in_a_checkpoint(make_config):  # noqa: F811
    config = make_config()
    assert (
        make_model(config, Contrast(coefficient=0.5, segment_length=4), scope="micro_batch").state_dict().keys()
        == make_model(config, None, scope="micro_batch").state_dict().keys()
    )
