"""Blocks that `torch.compile` turns into fewer kernels, each by itself, so that layers share one compilation."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from moe_toy.locality.base import LocalityScheme
from moe_toy.model.expert_backends import has_grouped
from moe_toy.model.transformer import MoETransformer

log = logging.getLogger(__name__)
REASON = 200
"""Characters of what the compiler says, which can be pages."""


def wants_compiled_blocks(model: MoETransformer, device_type: str, precision: str) -> bool:
    """`auto` compiles where it was found to pay: on CUDA in bf16, where nothing hinders it."""
    if model.config.compile != "auto":
        return model.config.compile
    return device_type == "cuda" and hindrance_to_compiling(model, device_type, precision) is None


def hindrance_to_compiling(model: MoETransformer, device_type: str, precision: str) -> str | None:
    """What would make blocks compile again and again: experts in a loop, whose counts of rows differ, and a locality
    scheme that steers by a function of the step."""
    moe, widths = model.config.moe, (model.config.hidden_size, model.config.expert_hidden_size)
    if (
        not precision.startswith("bf16")
        or moe.backend == "loop"
        or not has_grouped(device_type, torch.bfloat16, widths)
    ):
        return f"experts compile as grouped products in bf16 only (given {precision}, moe.backend={moe.backend})"
    if type(model.locality).steer is not LocalityScheme.steer:
        return f"locality={type(model.locality).__name__} steers the router by a function of each step"
    return None


def compile_blocks(blocks: Iterable[nn.Module], backend: str | Callable[..., Any] = "inductor") -> None:
    """Let blocks run compiled in training mode, in place; what they are and what is saved of them does not change.

    Shapes are those of training, so nothing is compiled again for the lengths of validations: in eval mode, which also
    is when outputs of inner modules are looked at, blocks run as they are. Where compiling fails, one line says so and
    they run as they are in training too.
    """
    import torch._dynamo  # seconds
    import torch._functorch.config

    # Else the backward pass would be compiled within the first one, where nobody can go on without.
    if hasattr(torch._functorch.config, "force_non_lazy_backward_lowering"):
        torch._functorch.config.force_non_lazy_backward_lowering = True
    # It would cut the graph of a block at borders of gradient buckets, to overlap what separate blocks overlap anyway.
    torch._dynamo.config.optimize_ddp = False
    failures: list[str] = []
    for block in blocks:
        if not isinstance(block.forward, _CompiledForward):
            block.forward = _CompiledForward(block, backend, failures)


class _CompiledForward:
    """In place of a block's `forward`, within its `__call__`: hooks, those of FSDP too, are not part of the graph."""

    def __init__(self, block: nn.Module, backend: str | Callable[..., Any], failures: list[str]) -> None:
        self.block, self.failures = block, failures
        self.plain = block.forward
        self.compiled = torch.compile(self.plain, backend=backend, dynamic=False)
        self.has_worked = False

    def __call__(self, *args: Any) -> Any:
        # One that has worked goes on: recomputing a block must keep what its first pass kept.
        if not self.block.training or (self.failures and not self.has_worked):
            return self.plain(*args)
        try:
            output = self.compiled(*args)
        except torch._dynamo.exc.TorchDynamoException as error:
            self.failures.append(" ".join(str(error).split())[:REASON])
            log.warning("model.compile: blocks run uncompiled, as compiling failed (%s)", self.failures[0])
            return self.plain(*args)
        self.has_worked = True
        return output
