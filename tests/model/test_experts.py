import pytest
import torch
import torch.nn.functional as F

from moe_toy.model import expert_backends
from moe_toy.model.experts import Experts, gather_and_sum, pad_runs, sort_by_expert, sum_rows
from moe_toy.model.initial_values import init_matrices


def naive_experts(experts: Experts, x, expert_ids, weights):
    """Every token through each of its experts, one at a time."""
    y = torch.zeros_like(x)
    for b, s in torch.cartesian_prod(torch.arange(x.shape[0]), torch.arange(x.shape[1])).tolist():
        for j, expert in enumerate(expert_ids[b, s].tolist()):
            gate, up = (x[b, s] @ experts.gate_up[expert]).chunk(2)
            y[b, s] = y[b, s] + weights[b, s, j] * ((F.silu(gate) * up) @ experts.down[expert])
    return y


@pytest.fixture
def problem(make_config):
    """Experts and inputs in float64; one expert serves nobody."""
    torch.manual_seed(0)
    config = make_config(num_experts=8, top_k=3)
    experts = Experts(config).double()
    init_matrices(experts, 0.5, seed=0)
    x = torch.randn(2, 5, config.hidden_size, dtype=torch.float64, requires_grad=True)
    expert_ids = torch.rand(2, 5, 7).argsort(-1)[..., :3]  # expert 7 is never chosen
    weights = torch.rand(2, 5, 3, dtype=torch.float64, requires_grad=True)
    return experts, x, expert_ids, weights


def test_output_and_gradients_equal_a_naive_per_token_reference(problem):
    experts, x, expert_ids, weights = problem
    inputs = (x, weights, experts.gate_up, experts.down)
    cotangent = torch.randn(x.shape, dtype=torch.float64)
    y, naive = experts(x, expert_ids, weights), naive_experts(experts, x, expert_ids, weights)
    torch.testing.assert_close(y, naive)
    for ours, reference in zip(
        torch.autograd.grad(y, inputs, cotangent), torch.autograd.grad(naive, inputs, cotangent), strict=True
    ):
        torch.testing.assert_close(ours, reference)


def test_backends_are_equal_in_values_and_gradients():
    torch.manual_seed(0)
    counts = torch.tensor([3, 0, 5, 2])
    rows, weight = torch.randn(10, 16, requires_grad=True), torch.randn(4, 16, 8, requires_grad=True)
    cotangent = torch.randn(10, 8)
    results = []
    for backend in (expert_backends.loop_linear, expert_backends.grouped_linear):
        y = backend(rows, weight, counts)
        results.append((y, *torch.autograd.grad(y, (rows, weight), cotangent)))
    for loop, grouped in zip(*results, strict=True):
        torch.testing.assert_close(loop, grouped)


@pytest.mark.parametrize(
    ("dtype", "widths", "grouped"),
    [(torch.float32, (16, 8), True), (torch.float32, (16, 6), False), (torch.float64, (16, 8), False)],
)
def test_auto_takes_the_loop_where_the_grouped_product_has_no_kernel(dtype, widths, grouped):
    backend = expert_backends.pick_backend("auto", torch.device("cpu"), dtype, widths)
    assert backend is (expert_backends.grouped_linear if grouped else expert_backends.loop_linear)


def test_experts_follow_autocast(problem):
    experts, x, expert_ids, weights = problem
    experts, x, weights = experts.float(), x.float(), weights.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = experts(x, expert_ids, weights)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, experts(x, expert_ids, weights), atol=0.2, rtol=0.1)


def test_sorting_is_stable_and_counts_every_assignment():
    order, position, counts = sort_by_expert(torch.tensor([[2, 0], [0, 1], [2, 1]]), num_experts=4)
    assert order.tolist() == [1, 2, 3, 5, 0, 4]
    assert position.tolist() == [[4, 0], [1, 2], [5, 3]]
    assert counts.tolist() == [2, 2, 2, 0]


def test_more_experts_than_a_short_number_can_name_are_sorted():
    order, position, counts = sort_by_expert(torch.tensor([[39_999, 0], [1, 39_999]]), num_experts=40_000)
    assert order.tolist() == [1, 2, 0, 3]
    assert position.tolist() == [[2, 0], [1, 3]]
    assert counts.nonzero().flatten().tolist() == [0, 1, 39_999]


def test_runs_are_filled_up_to_a_multiple():
    order, position, counts = sort_by_expert(torch.tensor([[2, 0], [0, 1], [2, 1]]), num_experts=4)
    order, position, counts, is_assignment = pad_runs(order, position, counts, multiple=3)
    assert order.tolist() == [1, 2, 0, 3, 5, 0, 0, 4, 0]
    assert is_assignment.tolist() == [True, True, False, True, True, False, True, True, False]
    assert position.tolist() == [[6, 0], [1, 3], [7, 4]]
    assert counts.tolist() == [3, 3, 3, 0]


def test_what_fills_runs_up_changes_neither_values_nor_gradients(problem, monkeypatch):
    experts, x, expert_ids, weights = problem
    inputs, cotangent = (x, weights, experts.gate_up, experts.down), torch.randn(x.shape, dtype=torch.float64)
    plain = experts(x, expert_ids, weights)
    monkeypatch.setattr("moe_toy.model.experts.multiple_of_rows", lambda *_: 4)
    filled = experts(x, expert_ids, weights)
    torch.testing.assert_close(filled, plain)
    for ours, reference in zip(*(torch.autograd.grad(y, inputs, cotangent) for y in (filled, plain)), strict=True):
        torch.testing.assert_close(ours, reference)


def test_in_bf16_on_a_cpu_few_numbers_of_rows_occur(problem, monkeypatch):
    experts, x, expert_ids, weights = problem
    seen = []

    def linear(rows, weight, counts):
        seen.append(counts)
        return expert_backends.loop_linear(rows, weight, counts)

    monkeypatch.setattr("moe_toy.model.experts.pick_backend", lambda *_: linear)
    with torch.autocast("cpu", torch.bfloat16):
        experts.float()(x.float(), expert_ids, weights.float())
    for counts in seen:
        assert counts.tolist() == [expert_backends.CPU_ROWS] * 7 + [0]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.01)], ids=str)
def test_rows_for_a_compiler_add_up_as_without_one(dtype, tolerance):
    torch.manual_seed(0)
    rows, position = torch.randn(12, 5).to(dtype), torch.randperm(12).view(4, 3)
    total = gather_and_sum(rows, position)
    assert total.dtype == dtype
    torch.testing.assert_close(total, sum_rows(rows, position), atol=tolerance, rtol=tolerance)
