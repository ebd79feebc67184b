"""One operation, two ways: multiply runs of rows by the matrix of the expert they belong to.

Rows come sorted by expert; `counts[e]` of them belong to expert e. Both ways give equal values and gradients.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

ALIGNMENT = 16
"""Bytes that the rows of every matrix must be a multiple of in `grouped_mm`."""

CPU_ROWS = 32
"""Few enough that little is computed for nothing, enough that a few dozen products serve all numbers of rows."""

ExpertLinear = Callable[[Tensor, Tensor, Tensor], Tensor]


def loop_linear(
    rows: Float[Tensor, "row input"],
    weight: Float[Tensor, "expert input output"],
    counts: Int[Tensor, " expert"],
) -> Float[Tensor, "row output"]:
    """One matrix product per expert; waits for the counts to reach the host."""
    # unbind, not weight[e]: indexing in a loop would build a gradient of the full size for every expert
    runs = rows.split(counts.tolist())
    return torch.cat([run @ matrix for run, matrix in zip(runs, weight.unbind(0), strict=True)])


def grouped_linear(
    rows: Float[Tensor, "row input"],
    weight: Float[Tensor, "expert input output"],
    counts: Int[Tensor, " expert"],
) -> Float[Tensor, "row output"]:
    """One grouped product without a host synchronisation."""
    # The last offset is the number of rows, so none is left unwritten. The docstring of grouped_mm forbids that; its
    # kernels and their tests do not (pytorch/pytorch pull request 191018).
    return F.grouped_mm(rows, weight, offs=counts.cumsum(0).int())


def pick_backend(
    name: Literal["auto", "grouped", "loop"], device: torch.device, dtype: torch.dtype, widths: Sequence[int]
) -> ExpertLinear:
    """`auto` takes the grouped product where this device, dtype and the matrices' `widths` have it, else the loop."""
    if name == "grouped" or (name == "auto" and has_grouped(device.type, dtype, widths)):
        return grouped_linear
    return loop_linear


def has_grouped(device_type: str, dtype: torch.dtype, widths: Sequence[int]) -> bool:
    """Whether there is a grouped product here, of matrices of these `widths`."""
    if not hasattr(F, "grouped_mm"):
        return False
    if torch.compiler.is_compiling() and dtype != torch.bfloat16:
        return False  # fp32 grouped_mm fails under torch.compile in torch 2.13
    if not is_aligned(dtype, widths):
        return False
    if device_type == "cuda":
        return dtype == torch.bfloat16 and torch.cuda.get_device_capability() >= (8, 0)
    return device_type == "cpu" and dtype in (torch.float32, torch.bfloat16)


def multiple_of_rows(device: torch.device, dtype: torch.dtype) -> int:
    """Of what the number of rows of each expert should be a multiple. On a CPU, oneDNN compiles a product in bf16 anew
    for each number of rows that it has not seen lately, which takes longer than the product."""
    return CPU_ROWS if device.type == "cpu" and dtype == torch.bfloat16 and not torch.compiler.is_compiling() else 1


def is_aligned(dtype: torch.dtype, widths: Sequence[int]) -> bool:
    """Whether `grouped_mm` takes matrices of these `widths` anywhere."""
    return dtype != torch.float64 and not any(width * dtype.itemsize % ALIGNMENT for width in widths)
