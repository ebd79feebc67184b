"""Fully sharded data parallelism: parameters, gradients and optimiser states spread over ranks (FSDP2)."""

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from moe_toy.model.transformer import MoETransformer


def shard(model: MoETransformer, mesh: DeviceMesh) -> None:
    """Block by block, in place. A mesh of (nodes, ranks of a node) shards within a node and replicates over nodes."""
    if isinstance(model, FSDPModule):
        return
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "route")
