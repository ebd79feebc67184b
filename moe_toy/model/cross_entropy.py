"""Next tokens: their cross-entropy, as a mean without holding all logits of a large vocabulary and token by token, and
the most likely one."""

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

log = logging.getLogger(__name__)
CHUNK_LOGITS = {"cpu": 2**22, "cuda": 2**27}
"""How many logits are held at once: on a CPU as many as stay in its cache, on a GPU as many as keep it busy."""


NO_TARGET = -100
Compiler = str | Callable[..., Any]
"""A backend of `torch.compile`."""


def mean_cross_entropy(
    hidden: Float[Tensor, "token hidden"],
    weight: Float[Tensor, "vocab hidden"],
    targets: Int[Tensor, " token"],
    compiler: Compiler | None = None,
) -> Float[Tensor, ""]:
    """Mean of `cross_entropy(hidden @ weight.T, targets)`, in nats.

    Gradients are computed with the loss, chunk by chunk, from the same logits and probabilities; the backward pass only
    scales them. That is possible because the loss is one number. A `compiler` makes one pass from logits to loss and
    gradient; where that fails, one line says so and it goes on without.
    """
    return _MeanCrossEntropy.apply(hidden, weight, targets, compiler)


class _MeanCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, compiler: Compiler | None = None) -> Tensor:
        device = hidden.device.type
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else hidden.dtype
        x, w = hidden.to(dtype), weight.to(dtype)
        total = torch.zeros((), dtype=torch.promote_types(dtype, torch.float32), device=hidden.device)
        # Half precision would lose what later chunks add to the sum of those before.
        d_weight = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
        d_hidden = torch.empty_like(x)
        rows = max(1, CHUNK_LOGITS.get(device, CHUNK_LOGITS["cuda"]) // len(weight))
        for start in range(0, len(hidden), rows):
            chunk = slice(start, start + rows)
            target = targets[chunk, None]
            if compiler is not None and any(ctx.needs_input_grad):
                loss, d_logits = _compiled(compiler)(x[chunk] @ w.T, target)
                total += loss
                torch.mm(d_logits, w, out=d_hidden[chunk])
                _add_product(d_weight, d_logits.T, x[chunk])
                continue
            logits = (x[chunk] @ w.T).to(total.dtype)
            if not any(ctx.needs_input_grad):
                total -= logits.log_softmax(-1).gather(-1, target).sum()
                continue
            # One exponential of each: the largest probability tells what all were divided by.
            largest, of_target = logits.amax(-1), logits.gather(-1, target)
            d_logits = torch.softmax(logits, -1, out=logits)
            total += (largest - d_logits.amax(-1).log()).sum() - of_target.sum()
            d_logits.scatter_add_(-1, target, d_logits.new_full((), -1).expand_as(target))
            d_logits = d_logits.to(dtype)
            torch.mm(d_logits, w, out=d_hidden[chunk])
            _add_product(d_weight, d_logits.T, x[chunk])
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.num_tokens, ctx.weight_dtype = len(hidden), weight.dtype
        return total / len(hidden)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor, Tensor, None, None]:
        d_hidden, d_weight = ctx.saved_tensors
        scale = d_loss / ctx.num_tokens
        return d_hidden * scale, (d_weight * scale).to(ctx.weight_dtype), None, None


def loss_and_gradient(
    logits: Float[Tensor, "token vocab"], target: Int[Tensor, "token 1"]
) -> tuple[Float[Tensor, ""], Float[Tensor, "token vocab"]]:
    """Summed cross-entropy, at least in fp32, and its gradient in the dtype of the logits: for a compiler, which needs
    no copy of the logits in fp32 for it."""
    log_probabilities = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    is_target = torch.arange(logits.shape[-1], device=logits.device) == target
    gradient = log_probabilities.exp() - is_target.to(log_probabilities.dtype)
    return -log_probabilities.gather(-1, target).sum(), gradient.to(logits.dtype)


@lru_cache
def _compiled(compiler: Compiler) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    # All chunks but the last are of one shape.
    compiled, failures = torch.compile(loss_and_gradient, backend=compiler, dynamic=False), []

    def call(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if failures:
            return loss_and_gradient(logits, target)
        try:
            return compiled(logits, target)
        except torch._dynamo.exc.TorchDynamoException as error:
            failures.append(" ".join(str(error).split())[:200])
            log.warning("model.compile: the loss runs uncompiled, as compiling failed (%s)", failures[0])
            return loss_and_gradient(logits, target)

    return call


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a @ b to `total`, without a product of its size beside it where there is such an operation."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    elif total.is_cuda and torch.cuda.get_device_capability(total.device) >= (8, 0):
        torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
    else:
        total += a @ b


def next_token_losses(
    logits: Float[Tensor, "batch seq vocab"], token_ids: Int[Tensor, "batch seq"]
) -> Float[Tensor, "batch target"]:
    """Cross-entropy in nats of each token but the first, given those before it."""
    targets = F.pad(token_ids[:, 1:], (0, 1), value=NO_TARGET)  # slicing logits instead would copy them all
    losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=NO_TARGET, reduction="none")
    return losses.view_as(token_ids)[:, :-1]


def most_likely(logits: Float[Tensor, "batch seq vocab"]) -> Int[Tensor, "batch seq"]:
    """The most likely next token at each position; of equals the first."""
    if logits.device.type == "cpu" and logits.dtype in (torch.float32, torch.float64):
        return torch.from_numpy(logits.detach().numpy().argmax(-1))  # six times as fast, on one thread, as torch's
    return logits.argmax(-1)
