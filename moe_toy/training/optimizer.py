"""An optimiser over two parameter groups, and its learning-rate schedule."""

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from moe_toy.training.config import OptimizerConfig
from moe_toy.training.optimizer_in_backward import AdafactorInBackward


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """Matrices decay, vectors (norm weights) do not. Fused AdamW: on a CPU four times as fast as foreach."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.algorithm == "adafactor_in_backward":
        return AdafactorInBackward(groups, lr=config.lr, foreach=False)
    optimizer = AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)
    # Or Lightning would refuse to clip in mixed precision: it takes every fused optimiser for one that unscales fp16
    # gradients by itself. Without the mark, they are unscaled before they are clipped.
    optimizer._step_supports_amp_scaling = False
    return optimizer


def build_schedule(optimizer: Optimizer, config: OptimizerConfig, total_steps: int) -> LRScheduler:
    """Linear warm-up to `lr`, then a cosine to `min_lr` at `total_steps`; stepped after each optimiser step."""
    decay = CosineAnnealingLR(optimizer, T_max=max(1, total_steps - config.warmup_steps), eta_min=config.min_lr)
    if not config.warmup_steps:
        return decay
    warmup = LinearLR(optimizer, start_factor=1 / (config.warmup_steps + 1), total_iters=config.warmup_steps)
    return SequentialLR(optimizer, [warmup, decay], milestones=[config.warmup_steps])
