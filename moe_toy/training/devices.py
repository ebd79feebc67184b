"""That this machine has what `trainer` asks for."""

import logging
from typing import Any

import torch

from moe_toy.errors import UserError

log = logging.getLogger(__name__)
ON_GPU = ("gpu", "cuda")
KNOWN = (*ON_GPU, "cpu", "mps", "auto")


def runs_on_gpu(accelerator: str) -> bool:
    return accelerator in ON_GPU or (accelerator == "auto" and torch.cuda.is_available())


def check_devices(trainer: dict[str, Any]) -> None:
    """Refuse a GPU where there is none, more of them than there are, and a precision that the device lacks."""
    accelerator, precision = trainer.get("accelerator", "auto"), str(trainer.get("precision"))
    on_gpu = runs_on_gpu(accelerator)
    if accelerator not in KNOWN:
        raise UserError(f"trainer.accelerator={accelerator} is none that runs were tried on; use cpu or gpu")
    if precision == "transformer-engine":
        raise UserError(f"trainer.precision={precision} casts layers that we have not; use bf16-mixed or 32-true")
    numbered = isinstance(trainer["devices"], list) or "," in str(trainer["devices"])
    if accelerator == "cpu" and numbered:
        raise UserError(f"trainer.devices={trainer['devices']}: a CPU has no numbers; give how many processes share it")
    if on_gpu and not torch.cuda.is_available() and not torch.backends.mps.is_available():
        way = "install a CUDA build" if torch.version.cuda is None else "look at nvidia-smi and CUDA_VISIBLE_DEVICES"
        raise UserError(
            f"trainer.accelerator={accelerator}: no GPU is visible to torch {torch.__version__}; use trainer=cpu, or "
            f"{way}"
        )
    if on_gpu and torch.cuda.is_available():
        _check_number(trainer["devices"], torch.cuda.device_count())
        if precision.startswith("bf16") and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise UserError(
                f"trainer.precision={precision}: {torch.cuda.get_device_name()} has no bf16; use 16-mixed or 32-true"
            )
    if precision == "16-true":
        raise UserError(
            "trainer.precision=16-true: small gradients and AdamW's eps are 0 in fp16; use bf16-true, or 16-mixed on a "
            "GPU"
        )
    if precision in ("16", "16-mixed") and not on_gpu:
        raise UserError(f"trainer.precision={precision} needs a GPU; on a CPU use bf16-mixed or 32-true")
    if precision.startswith("bf16") and not on_gpu and not cpu_has_bf16():
        log.warning(
            "trainer.precision=%s: this CPU has no products in bf16 (AVX512-BF16 or AMX), so that a run takes several "
            "times as long as with trainer.precision=32-true",
            precision,
        )


def cpu_has_bf16() -> bool:
    """Whether an x86 CPU multiplies matrices in bf16 without a detour; of others nothing is known, and True is said."""
    can = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return can.get("architecture") != "x86_64" or can.get("avx512_bf16", False) or can.get("amx_bf16", False)


def num_devices(devices: int | str | list[int], available: int) -> int:
    """How many processes `trainer.devices` stands for on one node."""
    if devices in ("auto", -1, "-1"):
        return available
    if isinstance(devices, str) and "," in devices:
        return len([number for number in devices.split(",") if number])
    return len(devices) if isinstance(devices, list) else int(devices)


def _check_number(devices: int | str | list[int], available: int) -> None:
    listed = devices.split(",") if isinstance(devices, str) and "," in devices else devices
    numbers = [int(number) for number in listed if number != ""] if isinstance(listed, list) else []
    highest = max(numbers) + 1 if numbers else num_devices(devices, available)
    if highest > available:
        raise UserError(
            f"trainer.devices={devices}: torch sees {available} {'GPU' if available == 1 else 'GPUs'}; "
            "give fewer, or trainer.devices=auto for all"
        )
