"""The shell around every metric: integer states that add over batches and ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor
from torchmetrics import Metric

from moe_toy.errors import UserError
from moe_toy.metrics.activation import check_expert_ids
from moe_toy.routing import RoutingTrace


class CountingMetric(Metric):
    """A metric whose states are sums and whose result, a frozen dataclass, reaches the caller as it is."""

    full_state_update = False

    def add_count(self, name: str, *shape: int, dtype: torch.dtype = torch.int64) -> None:
        """Declare a state of zeros which is summed over ranks."""
        self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")

    def _wrap_compute(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        # torchmetrics squeezes one-element tensors, which would drop the layer axis of a model with one layer.
        boxed = super()._wrap_compute(lambda: _Boxed(compute()))
        return lambda: boxed().result


class RoutingMetric(CountingMetric):
    """A metric of routing traces: `update(trace)` adds counts, `compute()` scores their sum.

    States are int64 sums, so batches and ranks combine in any order with bit-identical results, and memory does not
    grow with the data. A trace without `domain_ids` counts as domain 0.
    """

    def __init__(self, *, num_layers: int, num_experts: int, num_domains: int = 1) -> None:
        super().__init__()
        self.num_layers = num_layers
        self.num_experts = num_experts
        self.num_domains = num_domains

    def extend_domains(self, num_domains: int) -> None:
        """Make room for domains that turn up later; counts so far stay. For metrics that count by domain."""
        for name, default in self._defaults.items():
            zero = default.new_zeros(())  # expanded, so that large defaults take no memory
            self._defaults[name] = zero.expand(num_domains, *default.shape[1:])
            state = getattr(self, name)
            more = zero.to(state.device).expand(num_domains - self.num_domains, *state.shape[1:])
            setattr(self, name, torch.cat([state, more]))
        self.num_domains = num_domains

    def check(self, trace: RoutingTrace) -> None:
        """Refuse a trace of another model, and one whose experts are not numbered from 0."""
        rows = trace.expert_ids.shape[0]
        if (rows, trace.num_experts) != (self.num_layers, self.num_experts):
            raise UserError(
                f"the trace has {rows} MoE layers of {trace.num_experts} experts, but {type(self).__name__} was "
                f"made for {self.num_layers} layers of {self.num_experts}; make it with the numbers of the trace"
            )
        check_expert_ids(trace.expert_ids, self.num_experts)

    def domains_of(self, trace: RoutingTrace) -> Int64[Tensor, " batch"]:
        """The domain of every sequence, after checking that the trace fits this metric."""
        self.check(trace)
        batch = trace.expert_ids.shape[1]
        if trace.domain_ids is None:
            return torch.zeros(batch, dtype=torch.int64, device=trace.expert_ids.device)
        domain_ids = trace.domain_ids.to(trace.expert_ids.device, torch.int64)
        if domain_ids.shape != (batch,):
            raise UserError(
                f"the trace has {batch} sequences, but domain_ids of shape {tuple(domain_ids.shape)}; "
                "give the domain of every sequence"
            )
        if batch and not 0 <= int(domain_ids.min()) <= int(domain_ids.max()) < self.num_domains:
            raise UserError(
                f"the trace has domain_ids {int(domain_ids.min())}..{int(domain_ids.max())}, but "
                f"{type(self).__name__} was made for num_domains={self.num_domains}; raise num_domains"
            )
        return domain_ids


class _Boxed:
    """Hides a result from torchmetrics' post-processing."""

    def __init__(self, result: Any) -> None:
        self.result = result
