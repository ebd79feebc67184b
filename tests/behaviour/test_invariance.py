"""However a batch is split, recomputed or compiled, a scheme gives the same gradients; where it cannot, it says so."""

import pytest
import torch
from torch import Tensor

from moe_toy.balance.auxiliary import AuxiliaryLoss
from moe_toy.balance.base import LoadBalancer
from moe_toy.balance.loss_free import LossFreeBias
from moe_toy.model.cross_entropy import next_token_losses
from moe_toy.model.transformer import MoETransformer
from tests.model.conftest import MODEL, MOE, make_config  # noqa: F401 (make_config is a fixture)

SPLITS = {"1x8": 1, "2x4": 2, "4x2": 4}
EXACT = {
    "none": None,
    "sequence": {"scope": "sequence"},
    "segment": {"scope": "segment", "segment_length": 4},
    "exact": {"scope": "global_batch", "estimate": "exact"},
    "ema": {"scope": "ema", "decay": 0.9},
    "loss_free": None,
}
APPROXIMATE = {"micro_batch": {"scope": "micro_batch"}, "prefix": {"scope": "global_batch", "estimate": "prefix"}}
BATCH, SEQ, VOCAB = 8, 10, 50


def make_model(config, scheme: str) -> MoETransformer:
    torch.manual_seed(0)
    sizes = {"num_layers": len(config.moe_layers), "num_experts": config.moe.num_experts}
    balancer = LossFreeBias(rate=0.05, **sizes) if scheme == "loss_free" else LoadBalancer(**sizes)
    if settings := {**EXACT, **APPROXIMATE}[scheme]:
        balancer = AuxiliaryLoss(coefficient=1.0, **settings, **sizes)
    return MoETransformer(config, balancer).double()


def two_steps(model: MoETransformer, num_micro_batches: int, backend: str | None = None) -> dict[str, Tensor]:
    """Gradients of both steps, the parameters and buffers after them, and the logged values of the last step; compiled
    where a backend of torch.compile is given."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    tokens = torch.randint(VOCAB, (2, BATCH, SEQ), generator=torch.Generator().manual_seed(1))
    forward = torch.compile(model, backend=backend) if backend else model
    results: dict[str, Tensor] = {}
    for step, batch in enumerate(tokens):
        micro_batches = batch.chunk(num_micro_batches)
        if model.balancer.looks_ahead:
            model.balancer.foresee(model.route(micro_batch) for micro_batch in micro_batches)
        for micro_batch in micro_batches:
            output = forward(micro_batch)
            loss = next_token_losses(output.logits, micro_batch).mean() + output.aux_loss
            (loss / num_micro_batches).backward()
        results |= {f"gradient {step} {name}": p.grad.clone() for name, p in model.named_parameters()}
        optimizer.step()
        optimizer.zero_grad()
        logged = model.balancer.after_optimizer_step()
    return {**results, **model.state_dict(), **logged}


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max((one[name] - other[name]).abs().max().item() for name in one if not name.startswith("balance_estimate"))


@pytest.mark.parametrize("layers", [{}, {"num_layers": 4, "moe_layer_period": 2}], ids=["moe", "mixed"])
@pytest.mark.parametrize("split", ["2x4", "4x2"])
@pytest.mark.parametrize("scheme", EXACT)
def test_splitting_a_batch_changes_neither_gradients_nor_parameters(make_config, scheme, split, layers):  # noqa: F811
    config = make_config(**layers)
    whole = two_steps(make_model(config, scheme), 1)
    assert distance(whole, two_steps(make_model(config, scheme), SPLITS[split])) < 1e-11


@pytest.mark.parametrize("scheme", APPROXIMATE)
def test_other_schemes_depend_on_the_split(make_config, scheme):  # noqa: F811
    whole = two_steps(make_model(make_config(), scheme), 1)
    assert distance(whole, two_steps(make_model(make_config(), scheme), 4)) > 1e-4


def test_the_log_tells_how_far_estimates_of_the_load_are_off(make_config):  # noqa: F811
    whole = two_steps(make_model(make_config(), "prefix"), 1)
    split = two_steps(make_model(make_config(), "prefix"), 4)
    exact = two_steps(make_model(make_config(), "exact"), 4)
    assert whole["balance_estimate_error/prefix"] == exact["balance_estimate_error/exact"] == 0
    assert 0.05 < split["balance_estimate_error/prefix"] < 2
    assert split["balance_estimate_error/previous"] > 0


@pytest.mark.parametrize("scheme", [*EXACT, *APPROXIMATE])
def test_activation_checkpointing_changes_nothing(make_config, scheme):  # noqa: F811
    plain, recomputed = (
        two_steps(make_model(make_config(activation_checkpointing=recompute), scheme), 2) for recompute in (False, True)
    )
    assert distance(plain, recomputed) < 1e-11
