"""What is recorded are the experts that a model uses: the others may be broken without anybody noticing."""

import re

import pytest
import torch
from torch import nn

from moe_toy.errors import UserError
from moe_toy.evaluation.pretrained_model import PretrainedModel
from moe_toy.evaluation.router_hooks import EVERY_OTHER_FAMILY, RouterHooks, family_of, named_by_user
from tests.evaluation.conftest import BOTH_SIDES, DECODERS, NUM_EXPERTS, TOP_K, tiny_model

TOKENS = torch.arange(10, 16)[None]  # few enough to leave experts unused


def watched(model, part=None) -> PretrainedModel:
    return PretrainedModel(model, family_of(model.config.model_type), part=part)


def break_experts(model, layer: int, broken: list[int]) -> None:
    """Fill the parameters of some experts with NaN: stacked in `experts` or, in JetMoE, right in the layer."""
    for name, parameter in model.named_parameters():
        if re.search(rf"layers\.{layer}\..*(mlp|block_sparse_moe|feed_forward)\.(experts\.|(in|out)put_linear)", name):
            parameter.data[broken] = torch.nan


@pytest.mark.parametrize("family", DECODERS)
def test_the_recorded_experts_are_those_used(family):
    model = tiny_model(family)
    observed = watched(model).observe(TOKENS)
    trace = observed.trace
    trace.check()
    assert trace.layer_ids == DECODERS[family][2]
    assert trace.expert_ids.shape == (len(trace.layer_ids), 1, 6, TOP_K)
    assert trace.num_experts == NUM_EXPERTS
    for row, layer in enumerate(trace.layer_ids):
        used = trace.expert_ids[row].unique().tolist()
        unused = [expert for expert in range(NUM_EXPERTS) if expert not in used]
        broken = tiny_model(family)
        break_experts(broken, layer, unused)
        with torch.no_grad():
            torch.testing.assert_close(broken(TOKENS).logits, model(TOKENS).logits)
            break_experts(broken, layer, used[:1])
            assert broken(TOKENS).logits.isnan().any()


@pytest.mark.parametrize("family", [name for name in DECODERS if name not in ("deepseek_v3", "phimoe")])
def test_the_best_expert_comes_first(family):
    """With a single expert per token the best one is left."""
    both = watched(tiny_model(family)).observe(TOKENS).trace.expert_ids
    best = watched(tiny_model(family, num_experts_per_tok=1)).observe(TOKENS).trace.expert_ids
    assert torch.equal(both[0, ..., 0], best[0, ..., 0])


def test_phimoe_lists_its_best_expert_first_though_its_weights_do_not_say_so():
    model = tiny_model("phimoe")
    logits = []
    model.model.layers[0].mlp.router.register_forward_hook(lambda module, args, output: logits.append(output[0]))
    expert_ids = watched(model).observe(TOKENS).trace.expert_ids
    assert torch.equal(expert_ids[0, 0, :, 0], logits[0].argmax(-1))


def test_groups_and_bias_of_deepseek_v3_count():
    """A top-k of the logits would miss the biased experts, and take experts of the closed group."""
    model = tiny_model("deepseek_v3")
    router, logits = model.model.layers[1].mlp.gate, []
    router.e_score_correction_bias.data[3] = 10.0
    router.register_forward_hook(lambda module, args, output: logits.append(output[0]))
    expert_ids = watched(model).observe(TOKENS).trace.expert_ids[0, 0]
    assert (expert_ids == 3).any(-1).all()
    assert (expert_ids < NUM_EXPERTS // 2).all()  # the other group is closed
    assert not torch.equal(expert_ids.sort(-1).values, logits[0].topk(TOP_K).indices.sort(-1).values)
    scores = logits[0].sigmoid().gather(-1, expert_ids)
    assert (scores[:, 0] >= scores[:, 1]).all()  # weights leave the bias out


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("family", BOTH_SIDES)
def test_encoder_and_decoder_are_apart(family, part):
    model = tiny_model(family)
    logits = []
    side = model.get_encoder() if part == "encoder" else model.get_decoder()
    (router,) = [module for name, module in side.named_modules() if name.endswith("router")]
    router.register_forward_hook(lambda module, args, output: logits.append(output[2]))
    trace = watched(model, part).observe(TOKENS).trace
    trace.check()
    top_k = 1 if family == "switch_transformers" else 2
    assert torch.equal(trace.expert_ids[0, 0], logits[0].view(6, -1).topk(top_k).indices)
    assert trace.layer_ids == (1,)
    assert (trace.vocab_size, trace.predicted_ids) == (None, None)


def test_a_dropped_token_counts_for_the_expert_that_was_full():
    model = tiny_model("switch_transformers", expert_capacity=1)
    roomy = tiny_model("switch_transformers", expert_capacity=64)
    same = TOKENS[:, :1].expand(-1, 6)  # all want the same expert
    full, free = (watched(each, "encoder").observe(same).trace.expert_ids for each in (model, roomy))
    assert torch.equal(full, free)


def test_active_parameters_leave_unused_experts_out():
    model = watched(tiny_model("olmoe"))
    model.observe(TOKENS)
    expert = 3 * 32 * 16
    assert model.total_parameters - model.active_parameters == 2 * (NUM_EXPERTS - TOP_K) * expert


class RemoteCode(nn.Module):
    """The interface of a router in somebody's remote code: logits, or indices first."""

    def __init__(self, output: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Module()])
        self.layers[0].gate = Gate(output)

    def forward(self, hidden):
        return self.layers[0].gate(hidden)


class Gate(nn.Module):
    def __init__(self, output: str) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 8)
        self.output = output

    def forward(self, hidden):
        logits = self.linear(hidden)
        weights, ids = logits.softmax(-1).topk(2)
        return {"logits": logits, "indices": (ids, weights, None), "dictionary": {"ids": ids, "weights": weights}}[
            self.output
        ]


@pytest.mark.parametrize(
    ("returns", "output"), [("logits", "logits"), ("indices", "indices"), ("dictionary", "indices")]
)
def test_routers_named_by_the_user(returns, output):
    torch.manual_seed(0)
    model, hidden = RemoteCode(returns), torch.randn(2, 3, 4)
    hooks = RouterHooks(model, named_by_user(r"layers\.\d+\.gate", output, top_k=2))
    with hooks.watching():
        model(hidden)
    expected = model.layers[0].gate.linear(hidden).topk(2).indices
    assert torch.equal(hooks.take(batch=2)[0], expected)


def test_without_moe_layers_the_modules_are_listed():
    with pytest.raises(UserError, match=r"no MoE layers found: of \d+ modules none matches .* layers.N.gate"):
        RouterHooks(RemoteCode("logits"), EVERY_OTHER_FAMILY)


def test_a_module_that_is_no_router_is_told():
    model = RemoteCode("logits")
    hooks = RouterHooks(model, named_by_user("layers", "logits", top_k=2))
    with hooks.watching():
        model(torch.randn(2, 3, 4))
    with pytest.raises(UserError, match="layers was called 0 times"):
        hooks.take(batch=2)


@pytest.mark.parametrize(
    ("returns", "output", "message"),
    [
        ("logits", "indices", "it returns no indices"),
        ("indices", "logits", "it returns 2 numbers a token, which are no logits of 8"),
    ],
)
def test_a_router_that_returns_the_other_is_told(returns, output, message):
    """The first was a traceback; of the second, experts 0 and 1 were those of every token."""
    model = RemoteCode(returns)
    hooks = RouterHooks(model, named_by_user(r"layers\.\d+\.gate", output, top_k=2, num_experts=8))
    with hooks.watching():
        model(torch.randn(2, 3, 4))
    with pytest.raises(UserError, match=rf"layers.0.gate .*{message}.*target.router_output=logits or indices"):
        hooks.take(batch=2)


def test_experts_beyond_their_number_are_refused():
    """Where 256 were named and there were more, bytes turned expert 300 into 44; of fewer, a trace file complained."""
    model = tiny_model("olmoe")
    few = PretrainedModel(model, family_of("olmoe"), num_experts=4)
    with pytest.raises(UserError, match=r"chose expert \d+ of 4; give target.num_experts, at least \d+"):
        few.observe(TOKENS)
    few.hooks.take = lambda batch: torch.tensor([[[[-1, 2]]]])
    with pytest.raises(UserError, match="chose expert -1, which is none; name other modules"):
        few.trace(TOKENS)


def test_layers_with_another_top_k_are_refused_by_name():
    model = tiny_model("mixtral")
    routers = [module for name, module in model.named_modules() if name.endswith(".gate")]
    routers[1].top_k = TOP_K + 1
    with pytest.raises(UserError, match=rf"number of experts per token \({TOP_K} in layer 0; {TOP_K + 1} in layer 1\)"):
        watched(model).observe(TOKENS)


def test_layers_with_another_number_of_experts_are_refused_by_name():
    model = tiny_model("mixtral")
    [module for name, module in model.named_modules() if name.endswith(".experts")][1].num_experts = 8
    with pytest.raises(UserError, match=rf"number of experts \({NUM_EXPERTS} in layer 0; 8 in layer 1\)"):
        watched(model)
