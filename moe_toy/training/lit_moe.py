"""The Lightning shell around the model: loss, optimiser step, and the trace handed on to callbacks."""

from dataclasses import asdict
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.nn.utils import clip_grads_with_norm_
from torch.optim import Optimizer

from moe_toy.errors import UserError
from moe_toy.model.compiled_blocks import compile_blocks, wants_compiled_blocks
from moe_toy.model.cross_entropy import next_token_losses
from moe_toy.model.transformer import MoETransformer
from moe_toy.routing import TokenBatch
from moe_toy.training.config import OptimizerConfig
from moe_toy.training.gradient_norm import GradientNorm
from moe_toy.training.optimizer import build_optimizer, build_schedule
from moe_toy.training.steps import reset_batch_counts, set_epoch, set_validations


class LitMoE(LightningModule):
    """Steps return `{"loss"}` (training) or `{"token_losses", "trace"}` (validation) for callbacks.

    A callback with `needs_training_trace = True` finds `"trace"` in training steps too; one with
    `needs_predictions = True` finds the most likely next tokens in the traces of validations.

    Logs `train/loss` (cross-entropy in nats per token, without auxiliary losses), `train/load_balance_loss`
    (1 at perfect balance) and `train/z_loss`, these two as mean over MoE layers before their coefficients,
    `train/lr`, and `train/balance_estimate_error/*` where the balance scheme estimates the load of a step. The losses
    are those of the first rank's last micro-batch of a logged step.
    """

    def __init__(self, model: MoETransformer, optimizer: OptimizerConfig, keeps_activations: bool = False) -> None:
        """`keeps_activations` says that this rank has room for them where `activation_checkpointing` is `auto`."""
        super().__init__()
        self.model = model
        self.keeps_activations = keeps_activations
        self.optimizer_config = optimizer
        self.gradient_norm: GradientNorm | None = None
        """Of the step, where a callback has computed it before gradients are clipped by it."""
        # A checkpoint carries what it takes to build its model again.
        limit = {"locality": model.locality.settings} if model.locality.settings else {}
        kept = {"model": asdict(model.config), "optimizer": asdict(optimizer), **limit}
        self.save_hyperparameters(kept, logger=False)

    def setup(self, stage: str) -> None:
        if self.trainer.datamodule is not None:
            set_epoch(self.trainer, len(self.trainer.datamodule.train_dataloader()))
        config, strategy = self.model.config, self.trainer.strategy
        if config.activation_checkpointing == "auto":  # all ranks alike
            self.model.recomputes_blocks = not strategy.reduce_boolean_decision(self.keeps_activations)
        if wants_compiled_blocks(self.model, strategy.root_device.type, str(self.trainer.precision)):
            compile_blocks(self.model.blocks)
            if strategy.root_device.type == "cuda":
                self.model.loss_compiler = "inductor"

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        reset_batch_counts(
            checkpoint["loops"]["fit_loop"],
            step=checkpoint["global_step"],
            accumulated=self.trainer.accumulate_grad_batches,
        )

    def on_train_start(self) -> None:
        set_validations(self.trainer)

    def configure_model(self) -> None:
        if self.device_mesh is not None:
            shard(self.model, self.device_mesh)

    def training_step(self, batch: TokenBatch, batch_idx: int) -> dict[str, Any]:
        if self.model.balancer.looks_ahead:
            self._look_ahead(batch_idx)
        needs_trace = self._is_asked_for("needs_training_trace")
        output = self.model(batch.token_ids, only_loss=True, with_trace=needs_trace)
        self.log("train/loss", output.loss.detach(), prog_bar=True)
        rate = self.optimizers().param_groups[0]["lr"]
        self.log("train/lr", torch.tensor(rate, dtype=torch.float32))  # a number would wait for the device
        self.log_dict({f"train/{name}": value for name, value in output.aux_terms.items()})
        trace = {"trace": output.trace.with_domains(batch.domain_ids)} if needs_trace else {}
        return {"loss": output.loss + output.aux_loss, **trace}

    def validation_step(self, batch: TokenBatch, batch_idx: int) -> dict[str, Any]:
        output = self.model(batch.token_ids, with_predictions=self._is_asked_for("needs_predictions"))
        return {
            "token_losses": next_token_losses(output.logits, batch.token_ids),
            "trace": output.trace.with_domains(batch.domain_ids),
        }

    def _is_asked_for(self, need: str) -> bool:
        return any(getattr(callback, need, False) for callback in self.trainer.callbacks)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        values = self.model.balancer.after_optimizer_step()
        self.log_dict({f"train/{name}": value for name, value in values.items()})

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """As Lightning does, but a norm that is known already is not computed again."""
        norm, self.gradient_norm = self.gradient_norm, None
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        by_norm = gradient_clip_val and gradient_clip_algorithm != "value"
        if by_norm and norm is not None and norm.is_of(parameters):
            clip_grads_with_norm_(parameters, gradient_clip_val, norm.value)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    @torch.no_grad()
    def _look_ahead(self, batch_idx: int) -> None:
        """Before the first of several micro-batches, tell the balancer where the tokens of all of them will go."""
        accumulated = self.trainer.accumulate_grad_batches
        if accumulated > 1 and batch_idx % accumulated == 0:
            upcoming = self.trainer.datamodule.step_batches()
            self.model.balancer.foresee(self.model.route(batch.token_ids.to(self.device)) for batch in upcoming)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        if self.optimizer_config.algorithm == "adafactor_in_backward" and self.trainer.world_size > 1:
            raise UserError(
                f"optimizer.algorithm=adafactor_in_backward runs in one process, as it frees "
                f"gradients before they are averaged; set trainer.devices=1 (given {self.trainer.world_size} processes)"
            )
        optimizer = build_optimizer(self.model, self.optimizer_config)
        total_steps = int(self.trainer.estimated_stepping_batches)  # max_steps, or what epochs leave of it
        schedule = build_schedule(optimizer, self.optimizer_config, total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def shard(model: MoETransformer, mesh: DeviceMesh) -> None:
    """Block by block, in place. A mesh of (nodes, ranks of a node) shards within a node and replicates over nodes."""
    if isinstance(model, FSDPModule):
        return
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "route")
