"""Tensor parallelism as PyTorch has it: a plan by names, and DTensor does the rest (notebook 06)."""

from __future__ import annotations

import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module


def parallelize_by_plan(model: nn.Module) -> nn.Module:
    """Cut a decoder with Llama's layers by PyTorch's `parallelize_module`; changes the model. It cuts evenly: where the
    ranks don't divide the heads it goes through the middle of one, and attention stops at a shape that doesn't fit."""
    tied = model.lm_head.weight is model.model.embed_tokens.weight
    mesh = init_device_mesh(next(model.parameters()).device.type, (dist.get_world_size(),))
    plan = {f"self_attn.{name}_proj": ColwiseParallel() for name in "qkv"}
    plan |= {"mlp.gate_proj": ColwiseParallel(), "mlp.up_proj": ColwiseParallel()}
    plan |= {"self_attn.o_proj": RowwiseParallel(), "mlp.down_proj": RowwiseParallel()}
    for layer in model.model.layers:
        parallelize_module(layer, mesh, plan)
    parallelize_module(
        model,
        mesh,
        {
            "model.embed_tokens": RowwiseParallel(input_layouts=Replicate()),
            "lm_head": ColwiseParallel(output_layouts=Replicate()),
        },
    )
    if tied:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model
