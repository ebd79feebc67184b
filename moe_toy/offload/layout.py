"""Where the matrices of an expert lie: one row of whole pages per expert, gate and up projection first, then down."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from moe_toy.model.config import ModelConfig

PAGE = 4096
"""Bytes that rows and their places are a multiple of, which reads past the page cache ask for."""
LINE = 64
"""Bytes of a cache line, at which every matrix starts."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
DType = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Row `layer * num_experts + expert` is one expert, of any of the MoE layers."""

    num_layers: int
    """MoE layers only."""
    num_experts: int
    hidden_size: int
    expert_hidden_size: int
    dtype: DType

    @staticmethod
    def of(config: ModelConfig, dtype: DType) -> Layout:
        return Layout(
            num_layers=len(config.moe_layers),
            num_experts=config.moe.num_experts,
            hidden_size=config.hidden_size,
            expert_hidden_size=config.expert_hidden_size,
            dtype=dtype,
        )

    @property
    def num_rows(self) -> int:
        return self.num_layers * self.num_experts

    @property
    def row_bytes(self) -> int:
        end = self._down_offset + self.expert_hidden_size * self.hidden_size * self._item_bytes
        return round_up(end, PAGE)

    def matrices(self, memory: Any, offset: int) -> tuple[Tensor, Tensor]:
        """The row that starts at a byte of `memory`, a buffer or a tensor of bytes, as `gate_up` (hidden, 2 x width)
        and `down` (width, hidden). They share its memory."""
        gate_up = self.hidden_size, 2 * self.expert_hidden_size
        down = self.expert_hidden_size, self.hidden_size
        return self._tensor(memory, offset, gate_up), self._tensor(memory, offset + self._down_offset, down)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def _tensor(self, memory: Any, offset: int, shape: tuple[int, int]) -> Tensor:
        count = shape[0] * shape[1]
        if isinstance(memory, Tensor):
            return memory[offset : offset + count * self._item_bytes].view(DTYPES[self.dtype]).view(shape)
        return torch.frombuffer(memory, dtype=DTYPES[self.dtype], count=count, offset=offset).view(shape)

    @property
    def _down_offset(self) -> int:
        return round_up(self.hidden_size * 2 * self.expert_hidden_size * self._item_bytes, LINE)

    @property
    def _item_bytes(self) -> int:
        return DTYPES[self.dtype].itemsize


def round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
