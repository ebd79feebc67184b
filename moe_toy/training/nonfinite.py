"""Numbers gone wrong: noticed before they reach the weights."""

import logging
from collections.abc import Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from pydantic import PositiveInt, validate_call
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from moe_toy.distributed import part_of_this_rank, sum_over_ranks
from moe_toy.errors import UserError
from moe_toy.training.gradient_norm import GradientNorm

log = logging.getLogger(__name__)


class NonfiniteCallback(Callback):
    """Looks at losses and gradients before each update. Where one is NaN or infinite, `stop` ends the run and names
    the step, the layer and the last good checkpoint; `skip` leaves weights, optimiser and balancer as they are and goes
    on with the next step, at most `max_skips` times in a row.

    Logs `train/skipped_steps` once there are any. With a loss scaler (fp16), which skips steps itself, it does nothing.
    An optimiser that updates during the backward pass looks at each gradient itself; what it updated before a bad one
    stays updated.

    `deferred` lets the host run ahead: the device itself leaves weights, moments and balancer as they are at a bad
    step, and the host learns of it before the next update, validation or checkpoint. What is named is then a weight or
    the output of a layer, but no gradient. It needs fused AdamW and whole gradients; `auto` is on CUDA.
    """

    @validate_call(config={"strict": True})
    def __init__(
        self,
        *,
        on_nonfinite: Literal["stop", "skip"],
        max_skips: PositiveInt,
        deferred: Literal["auto"] | bool,
    ) -> None:
        self.on_nonfinite, self.max_skips, self.deferred = on_nonfinite, max_skips, deferred
        self.pending: Pending | None = None
        self.was_wrong: Tensor | None = None  # on the device, of the step that is being taken
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
        self._settle()
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        gradients = [part_of_this_rank(p.grad) for p in parameters]
        norm = nn.utils.get_total_norm(gradients)  # finite only if every number is
        refused = getattr(optimizer, "refused", [])
        is_wrong = sum_over_ranks((~torch.isfinite(norm + self.loss)).float() + len(refused)) > 0
        is_whole = all(gradient is p.grad for gradient, p in zip(gradients, parameters, strict=True))
        if is_whole and self._defers(optimizer, is_wrong):
            optimizer.found_inf, self.was_wrong = is_wrong.float(), is_wrong
            self.pending = Pending(trainer, module, trainer.global_step + 1, self.batches, is_wrong)
            module.gradient_norm = GradientNorm(norm, parameters) if self._is_last_to_see(trainer, module) else None
            self.balancer_state = state_of(module.model.balancer)
            return
        if not is_wrong:  # one look at the device per step
            self.skipped_in_a_row = 0
            is_final = is_whole and self._is_last_to_see(trainer, module)
            module.gradient_norm = GradientNorm(norm, parameters) if is_final else None
            return
        finding = find_nonfinite(module.model, self.batches, refused)
        self._count(trainer, f"step {trainer.global_step + 1}: {finding}")
        for parameter in module.parameters():
            parameter.grad = None  # which AdamW passes over, decay included
        self.balancer_state = state_of(module.model.balancer)

    def _is_last_to_see(self, trainer: Trainer, module: LightningModule) -> bool:
        """Whether nobody is asked between this callback and clipping: who changes `gradient.data` cannot be seen."""
        later = trainer.callbacks[trainer.callbacks.index(self) + 1 :]
        plain = Callback.on_before_optimizer_step, LightningModule.on_before_optimizer_step
        hooks = [owner.on_before_optimizer_step for owner in (*later, module)]
        return all(getattr(hook, "__func__", None) in plain for hook in hooks)

    def _defers(self, optimizer: Optimizer, verdict: Tensor) -> bool:
        wanted = verdict.is_cuda if self.deferred == "auto" else self.deferred
        return wanted and isinstance(optimizer, AdamW) and all(group["fused"] for group in optimizer.param_groups)

    def _settle(self) -> None:
        """Hear the verdict on the last step, if the host has not yet."""
        pending, self.pending = self.pending, None
        if pending is None:
            return
        if not pending.is_wrong():
            self.skipped_in_a_row = 0
            return
        # Its weights are still those, but its gradients are gone.
        finding = find_nonfinite(pending.module.model, pending.batches, gradients=False)
        self._count(pending.trainer, f"step {pending.step}: {finding}")

    def _count(self, trainer: Trainer, finding: str) -> None:
        """One more bad step: end the run, or warn."""
        self.skipped, self.skipped_in_a_row = self.skipped + 1, self.skipped_in_a_row + 1
        if self.on_nonfinite == "stop" or self.skipped_in_a_row > self.max_skips:
            raise UserError(
                f"{finding}; stopped before the update; the last good checkpoint is {last_checkpoint(trainer)}; "
                "continue from it with another seed or callbacks.nonfinite.on_nonfinite=skip, or start anew from its "
                "weights (init_from=) with another optimizer.lr"
            )
        log.warning("%s; this step is skipped, as %d before", finding, self.skipped - 1)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        if self.balancer_state is not None:
            before, balancer = self.balancer_state, module.model.balancer
            if self.was_wrong is not None:
                now = balancer.state_dict()
                before = {name: torch.where(self.was_wrong, x, now[name]) for name, x in before.items()}
            balancer.load_state_dict(before)
            self.balancer_state = self.was_wrong = None
        if self.skipped:
            module.log("train/skipped_steps", float(self.skipped))

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._settle()

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._settle()

    def state_dict(self) -> dict[str, int]:
        self._settle()  # no checkpoint is written before
        return {"skipped": self.skipped, "skipped_in_a_row": self.skipped_in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.skipped, self.skipped_in_a_row = state["skipped"], state["skipped_in_a_row"]


class Pending:
    """The verdict on a step, on its way from the device to the host."""

    def __init__(self, trainer: Trainer, module: LightningModule, step: int, batches: list[Any], wrong: Tensor) -> None:
        self.trainer, self.module, self.step, self.batches = trainer, module, step, batches
        self.event = None
        self.wrong = wrong
        if wrong.is_cuda:
            self.wrong = torch.empty_like(wrong, device="cpu", pin_memory=True).copy_(wrong, non_blocking=True)
            self.event = torch.cuda.Event()
            self.event.record()

    def is_wrong(self) -> bool:
        if self.event is not None:
            self.event.synchronize()  # of a step that the device has left behind
        return bool(self.wrong)


def state_of(balancer: nn.Module) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in balancer.state_dict().items()}


def find_nonfinite(
    model: nn.Module, batches: list[Any], refused: Sequence[Tensor] = (), *, gradients: bool = True
) -> str:
    """Where NaN or infinity comes from: a weight, else the first module of the forward pass, else, where `gradients`
    are still there, the first of the backward pass, which is that of the last parameter. `refused` are parameters
    whose gradients are gone."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"weight {name} is not finite"
    for batch in batches:
        if name := first_nonfinite_output(model, batch):
            return f"the output of {name} is not finite"
    if not gradients:
        return "the loss or a gradient is not finite (callbacks.nonfinite.deferred=false tells which)"
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
