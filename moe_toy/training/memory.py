"""How much memory a run needs at least, how much there is, and what to do where it ends."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from moe_toy.errors import UserError
from moe_toy.training.devices import num_devices, runs_on_gpu

if TYPE_CHECKING:
    from moe_toy.model.config import ModelConfig
    from moe_toy.model.transformer import MoETransformer

log = logging.getLogger(__name__)
GIB = 2**30
TIGHT = 0.8
"""From this share of what is free on, a run is warned of."""
KEPT_BEYOND_FLOOR = 1.7
"""What is kept on a GPU, as a multiple of the inputs of matrix products: 862 kB a token of the 1.43B model in
bf16-mixed (the slope from 8,192 to 65,536 tokens on an H200) where these take 532 kB, and some room."""
KEEPS_BELOW = 0.9
"""Up to this share of what is free on a GPU, activations are kept."""
CGROUPS = (  # of a container or a batch job: limit, use, and how the part of it that can be given back is called
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "total_inactive_file",
    ),
)
CPU_MEMORY_ENDED = ("can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class Need:
    """Bytes that the processes of one device hold, at least."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    """Of one micro-batch."""

    @property
    def total(self) -> int:
        return self.states + self.activations

    @property
    def states(self) -> int:
        """What does not shrink with the batch."""
        return self.weights + self.gradients + self.optimizer


def need_of(values: dict[str, Any], model: MoETransformer, recomputes_blocks: bool | None = None) -> Need:
    """Of the run that the config `values` describe, unless told otherwise recomputing what it does; `model` may lie on
    the meta device."""
    if recomputes_blocks is None:
        recomputes_blocks = model.recomputes_blocks
    trainer, data = values["trainer"], values["data"]
    precision, on_gpu = str(trainer.get("precision")), _on_gpu(values)
    sizes = [parameter.numel() for parameter in model.parameters()]
    width = {"bf16-true": 2, "64-true": 8, "64": 8}.get(precision, 4)
    weights = sum(sizes) * width
    in_backward = values["optimizer"]["algorithm"] == "adafactor_in_backward"
    states = [weights, max(sizes) * width if in_backward else weights, 0 if in_backward else 2 * weights]
    ranks = num_devices(trainer["devices"], torch.cuda.device_count() if on_gpu else 1)
    if not isinstance(trainer.get("strategy", "auto"), str):  # sharded
        states = [size // (ranks * trainer["num_nodes"]) for size in states]
    num_tokens, width = data["batch_size"] * data["sequence_length"], 2 if "16" in precision else width
    activations = num_tokens * width * _kept_per_token(model.config, recomputes_blocks)
    together = 1 if on_gpu else ranks  # processes that share this memory
    return Need(*(together * size for size in (*states, activations)))


def _kept_per_token(config: ModelConfig, recomputes_blocks: bool) -> int:
    """Numbers that the backward pass of the blocks needs: their inputs and those of their matrix products."""
    kv_size = config.num_kv_heads * config.head_size
    attention = 4 * config.hidden_size + 2 * kv_size
    experts = config.moe.top_k * (config.hidden_size + 3 * config.expert_hidden_size)
    experts += 3 * config.moe.num_shared_experts * config.expert_hidden_size
    num_moe = len(config.moe_layers)
    blocks = [attention + config.hidden_size + experts] * num_moe
    blocks += [attention + config.hidden_size + 3 * config.dense_hidden_size] * (config.num_layers - num_moe)
    return config.num_layers * config.hidden_size + max(blocks) if recomputes_blocks else sum(blocks)


def keeps_activations(values: dict[str, Any], model: MoETransformer) -> bool:
    """Whether a run whose `model.activation_checkpointing` is `auto` need not recompute blocks: on a GPU, if all that
    the backward pass needs fits into what is free. Says so in one line."""
    on_gpu = _on_gpu(values)
    free = free_memory(on_gpu) if on_gpu else None
    if values["model"]["activation_checkpointing"] != "auto" or free is None:
        return False
    floor = need_of(values, model, recomputes_blocks=False)
    per_token = (
        KEPT_BEYOND_FLOOR * floor.activations / (values["data"]["batch_size"] * values["data"]["sequence_length"])
    )
    need = floor.states + KEPT_BEYOND_FLOOR * floor.activations
    fits = need <= KEEPS_BELOW * free
    log.info(
        "model.activation_checkpointing=auto: %s (about %.1f GiB with all activations, %.0f kB a token; %.1f GiB free)",
        "activations are kept" if fits else "blocks are recomputed",
        need / GIB,
        per_token / 1e3,
        free / GIB,
    )
    return fits


def check_memory(values: dict[str, Any], model: MoETransformer) -> None:
    """Refuse a run that needs more memory than is free; warn of one that takes most of it."""
    on_gpu = _on_gpu(values)
    need, free = need_of(values, model), free_memory(on_gpu)
    if free is None or need.total <= TIGHT * free:
        return
    parts = ", ".join(f"{name} {getattr(need, name) / GIB:.1f}" for name in Need.__dataclass_fields__)
    place = "of the GPU's memory" if on_gpu else "of memory"
    text = (
        f"this run needs at least {need.total / GIB:.1f} GiB ({parts}), and {free / GIB:.1f} GiB {place} are free; "
        f"{_advice(values, need, free)}"
    )
    if need.total > free:
        raise UserError(f"{text}, or try all the same with check_memory=false")
    log.warning("%s, if it does not fit", text)


def _on_gpu(values: dict[str, Any]) -> bool:
    return runs_on_gpu(values["trainer"].get("accelerator", "auto"))


def free_memory(on_gpu: bool) -> int | None:
    """Bytes that a new process can have; None where the system does not say."""
    if on_gpu:
        return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else None
    candidates = [_available_to_the_system(), *(_left_in(*cgroup) for cgroup in CGROUPS)]
    return min((free for free in candidates if free is not None), default=None)


def _available_to_the_system() -> int | None:
    path = Path("/proc/meminfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _left_in(limit: str, use: str, reclaimable: str) -> int | None:
    """What the limit of a control group leaves; its file cache is given back where memory is short."""
    try:
        most = int(Path(limit).read_text())
        stat = Path(limit).with_name("memory.stat").read_text().split()
        return most - int(Path(use).read_text()) + int(stat[stat.index(reclaimable) + 1])
    except (OSError, ValueError):  # no such group, or its limit is "max"
        return None


def _advice(values: dict[str, Any], need: Need, free: int) -> str:
    ways = [] if _on_gpu(values) else ["trainer=gpu"]
    batch_size = values["data"]["batch_size"]
    fitting = int((TIGHT * free - need.states) // (need.activations // batch_size))
    if 1 <= fitting < batch_size:
        ways.append(f"data.batch_size={fitting}")
    elif values["optimizer"]["algorithm"] == "adamw":
        ways.append("an optimiser that keeps no gradients (as experiment=cpu_1b4_step)")
    ways.append("a smaller model")
    return f"use {' or '.join(ways)}"


@contextmanager
def report_out_of_memory() -> Iterator[None]:
    """One line, and what to do, for an allocation that failed; what was saved before is not touched."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        on_gpu = isinstance(error, torch.OutOfMemoryError)
        if not on_gpu and isinstance(error, RuntimeError) and not any(text in str(error) for text in CPU_MEMORY_ENDED):
            raise
        place = "the memory of the GPU" if on_gpu else "memory"
        raise UserError(
            f"{place} ended; use a smaller data.batch_size (global_batch_size keeps the steps as they are), "
            "model.activation_checkpointing=true or optimizer=adafactor_in_backward; what was saved is intact, and "
            "ckpt_path=auto goes on from it"
        ) from error
