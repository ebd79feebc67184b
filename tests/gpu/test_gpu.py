"""A training step, metrics, checkpoints and a captured model on a GPU, beside the same on a CPU."""

import copy
import logging
import warnings

import pandas as pd
import pytest
import torch

from moe_toy.metrics import analyze
from moe_toy.model.cross_entropy import mean_cross_entropy
from moe_toy.model.expert_backends import grouped_linear, has_grouped, loop_linear
from moe_toy.model.experts import gather_and_sum, sum_rows
from moe_toy.routing import RoutingTrace
from moe_toy.runs.checkpoint import Checkpoint
from tests.metrics.conftest import random_trace
from tests.model.test_transformer import make_model

pytestmark = pytest.mark.gpu


def step(model, tokens, precision=None):
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=precision == "bf16"):
        output = model(tokens, only_loss=True)
    (output.loss + output.aux_loss).backward()
    gradient = torch.cat([parameter.grad.flatten().cpu() for parameter in model.parameters()])
    return output.loss.item(), gradient, output.trace


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 0.05)])
@pytest.mark.parametrize("recompute", [False, True])
def test_a_training_step_equals_the_cpus(device, make_config, precision, tolerance, recompute):
    tokens = torch.randint(50, (4, 32))
    model = make_model(make_config(backend="auto", init_std=0.05, activation_checkpointing=recompute))
    theirs = copy.deepcopy(model).to(device)
    loss, gradient, trace = step(model, tokens)
    their_loss, their_gradient, their_trace = step(theirs, tokens.to(device), precision)
    assert abs(loss - their_loss) < tolerance * loss
    assert (gradient - their_gradient).norm() < tolerance * gradient.norm()
    if precision == "fp32":
        assert (trace.expert_ids == their_trace.expert_ids.cpu()).float().mean() > 0.999


def test_grouped_products_equal_the_loop_in_value_and_gradient(device):
    assert has_grouped(device.type, torch.bfloat16, (32, 64))
    counts = torch.tensor([5, 0, 17, 10], device=device)
    inputs = torch.randn(32, 32), torch.randn(4, 32, 64)
    results = []
    for linear in (grouped_linear, loop_linear):
        rows, weight = (x.to(device, torch.bfloat16).requires_grad_() for x in inputs)
        product = linear(rows, weight, counts)
        results.append([product, *torch.autograd.grad(product.float().square().sum(), (rows, weight))])
    for grouped, looped in zip(*results, strict=True):
        assert (grouped - looped).float().norm() < 0.01 * looped.float().norm()


def test_a_compiled_loss_equals_the_cpus(device):
    hidden, weight, targets = torch.randn(100, 64), torch.randn(300, 64), torch.randint(300, (100,))
    results = []
    for where, compiler in ((torch.device("cpu"), None), (device, "inductor")):
        inputs = [x.to(where).requires_grad_() for x in (hidden, weight)]
        with torch.autocast(where.type, torch.bfloat16):
            loss = mean_cross_entropy(*inputs, targets.to(where), compiler)
        results.append([x.cpu() for x in (loss, *torch.autograd.grad(loss, inputs))])
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).norm() < 0.01 * ours.norm()


def test_compiled_rows_add_up_as_without_a_compiler(device):
    rows, position = torch.randn(96, 32, device=device).bfloat16(), torch.randperm(96, device=device).view(12, 8)
    compiled = torch.compile(gather_and_sum)
    torch.testing.assert_close(compiled(rows, position), sum_rows(rows, position), atol=0.05, rtol=0.01)
    assert torch.equal(compiled(rows, position), compiled(rows, position))


def test_metrics_of_a_trace_on_the_device_equal_the_cpus_bit_for_bit(device):
    trace = random_trace(layers=3, batch=12, seq=64, k=2, num_experts=6)
    there = {name: x.to(device) for name, x in vars(trace).items() if isinstance(x, torch.Tensor)}
    ours, theirs = analyze(trace), analyze(RoutingTrace(**vars(trace) | there))
    for name, table in ours.items():
        pd.testing.assert_frame_equal(table, theirs[name], check_exact=True)


def test_a_checkpoint_of_the_device_goes_on_on_a_cpu(run, on_device, tmp_path):
    there = [*on_device, "trainer.val_check_interval=2", "callbacks=none"]
    run_dir = run(tmp_path / "run", *there, "trainer.max_steps=2")
    run(run_dir, "trainer.max_steps=4", "trainer.val_check_interval=2", "callbacks=none", "ckpt_path=auto")
    assert Checkpoint.open(run_dir).content["global_step"] == 4


def test_a_run_with_all_callbacks_ends_and_compiles_its_blocks(run, on_device, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        run_dir = run(tmp_path / "run", *on_device, "trainer.max_steps=6", "trainer.val_check_interval=3")
    assert Checkpoint.open(run_dir).content["global_step"] == 6
    assert "model.compile" not in caplog.text  # which says where compiling failed


def test_fsdp_of_one_rank_trains(run, on_device, tmp_path):
    run_dir = run(tmp_path / "run", "trainer=fsdp", *on_device, "trainer.devices=1", "trainer.max_steps=2")
    assert all(tensor.isfinite().all() for tensor in Checkpoint.open(run_dir).weights.values())


@pytest.mark.parametrize("recompute", [False, True])
def test_a_step_of_the_model_never_waits_for_the_device(device, make_config, recompute):
    if device.type != "cuda":
        pytest.skip("a CPU has nothing to wait for")
    model = make_model(make_config(backend="grouped", activation_checkpointing=recompute)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    tokens = torch.randint(50, (4, 32), device=device)

    def train():
        with torch.autocast("cuda", torch.bfloat16):
            output = model(tokens, only_loss=True)
        (output.loss + output.aux_loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    train()
    torch.cuda.set_sync_debug_mode("error")
    try:
        train()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_between_two_logged_steps_a_run_never_waits(run, on_device, device, tmp_path, monkeypatch):
    if device.type != "cuda":
        pytest.skip("a CPU has nothing to wait for")
    waits = {}
    from moe_toy.training.lit_moe import LitMoE

    original = LitMoE.on_train_batch_start

    def watch(module, *args):
        waits[module.global_step] = 0
        torch.cuda.set_sync_debug_mode("warn")
        return original(module, *args)

    def count(message, *args, **kwargs):
        if "called a synchronizing CUDA operation" in str(message):  # not that the mode itself is a prototype
            waits[max(waits)] += 1

    monkeypatch.setattr(LitMoE, "on_train_batch_start", watch)
    monkeypatch.setattr(warnings, "showwarning", count)
    warnings.simplefilter("always")
    try:
        quiet = ["callbacks=none", "trainer.log_every_n_steps=50", "trainer.limit_val_batches=0", "model.compile=false"]
        run(tmp_path / "run", *on_device, *quiet, "trainer.max_steps=8")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert not any(waits[step] for step in range(4, 7)), waits
