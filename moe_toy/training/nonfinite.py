"""Numbers gone wrong: noticed before they reach the weights."""

import logging
from collections.abc import Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from pydantic import PositiveInt, validate_call
from torch import Tensor, nn
from torch.optim import Optimizer

from moe_toy.distributed import part_of_this_rank, sum_over_ranks
from moe_toy.errors import UserError

log = logging.getLogger(__name__)


class NonfiniteCallback(Callback):
    """Looks at losses and gradients before each update. Where one is NaN or infinite, `stop` ends the run and names
    the step, the layer and the last good checkpoint; `skip` leaves weights, optimiser and balancer as they are and goes
    on with the next step, at most `max_skips` times in a row.

    Logs `train/skipped_steps` once there are any. With a loss scaler (fp16), which skips steps itself, it does nothing.
    An optimiser that updates during the backward pass looks at each gradient itself; what it updated before a bad one
    stays updated.
    """

    @validate_call(config={"strict": True})
    def __init__(self, *, on_nonfinite: Literal["stop", "skip"], max_skips: PositiveInt) -> None:
        self.on_nonfinite, self.max_skips = on_nonfinite, max_skips
        self.skipped = self.skipped_in_a_row = 0
        self.loss: Tensor | None = None
        self.batches: list[Any] = []
        self.balancer_state: dict[str, Tensor] | None = None  # before a step that is skipped

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self.loss, self.batches = None, []
        self.batches.append(batch)

    def on_before_backward(self, trainer: Trainer, module: LightningModule, loss: Tensor) -> None:
        self.loss = loss.detach() if self.loss is None else self.loss + loss.detach()

    def on_before_optimizer_step(self, trainer: Trainer, module: LightningModule, optimizer: Optimizer) -> None:
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        gradients = [part_of_this_rank(p.grad) for p in parameters]
        # One look at the device per step: a norm is finite only if every number is.
        norm = nn.utils.get_total_norm(gradients)
        refused = getattr(optimizer, "refused", [])
        is_wrong = sum_over_ranks((~torch.isfinite(norm + self.loss)).float() + len(refused))
        if not is_wrong:
            self.skipped_in_a_row = 0
            if all(gradient is p.grad for gradient, p in zip(gradients, parameters, strict=True)):  # of no shard
                module.gradient_norm = norm
            return
        self.skipped, self.skipped_in_a_row = self.skipped + 1, self.skipped_in_a_row + 1
        finding = f"step {trainer.global_step + 1}: {find_nonfinite(module.model, self.batches, refused)}"
        if self.on_nonfinite == "stop" or self.skipped_in_a_row > self.max_skips:
            raise UserError(
                f"{finding}; stopped before the update; the last good checkpoint is {last_checkpoint(trainer)}; "
                "continue from it with another seed or callbacks.nonfinite.on_nonfinite=skip, or start anew from its "
                "weights (init_from=) with another optimizer.lr"
            )
        log.warning("%s; this step is skipped, as %d before", finding, self.skipped - 1)
        for parameter in module.parameters():
            parameter.grad = None  # which AdamW passes over, decay included
        self.balancer_state = {name: x.clone() for name, x in module.model.balancer.state_dict().items()}

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        if self.balancer_state is not None:
            module.model.balancer.load_state_dict(self.balancer_state)
            self.balancer_state = None
        if self.skipped:
            module.log("train/skipped_steps", float(self.skipped))

    def state_dict(self) -> dict[str, int]:
        return {"skipped": self.skipped, "skipped_in_a_row": self.skipped_in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.skipped, self.skipped_in_a_row = state["skipped"], state["skipped_in_a_row"]


def find_nonfinite(model: nn.Module, batches: list[Any], refused: Sequence[Tensor] = ()) -> str:
    """Where NaN or infinity comes from: a weight, else the first module of the forward pass, else the first gradient
    of the backward pass, which is that of the last parameter. `refused` are parameters whose gradients are gone."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"weight {name} is not finite"
    for batch in batches:
        if name := first_nonfinite_output(model, batch):
            return f"the output of {name} is not finite"
    for name, parameter in reversed(list(model.named_parameters())):
        is_gone = any(parameter is other for other in refused)
        if is_gone or (parameter.grad is not None and not torch.isfinite(parameter.grad).all()):
            return f"the gradient of {name} is not finite"
    return "the norm of the gradient or the loss is not finite, on this rank from finite parts"


@torch.no_grad()
def first_nonfinite_output(model: nn.Module, batch: Any) -> str | None:
    """The innermost such module that runs first; the weights must be those that went wrong."""
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if not found and isinstance(first, Tensor) and not torch.isfinite(first).all():
                found.append(name)

        return hook

    was_training = model.training
    hooks = [module.register_forward_hook(look(name)) for name, module in model.named_modules() if name]
    model.eval()  # nothing is counted
    try:
        model(batch.token_ids)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def last_checkpoint(trainer: Trainer) -> str:
    path = getattr(trainer.checkpoint_callback, "last_path", None)
    return str(path) if path else "none yet"
