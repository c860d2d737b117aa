"""Several processes, the way stylegan3 does it: broadcast once, average gradients before each step."""

from __future__ import annotations

import itertools

import torch


def broadcast(module: torch.nn.Module) -> torch.nn.Module:
    """Give every process the first one's parameters and buffers. Returns the module itself."""
    with torch.no_grad():
        for tensor in itertools.chain(module.parameters(), module.buffers()):
            torch.distributed.broadcast(tensor, src=0)
    return module


def sum_gradients(module: torch.nn.Module, num_gpus: int) -> None:
    """Average gradients over all processes, as one flat tensor. Does nothing for one process."""
    parameters = [parameter for parameter in module.parameters() if parameter.grad is not None]
    if num_gpus <= 1 or not parameters:
        return
    flat = torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])
    torch.distributed.all_reduce(flat)
    flat /= num_gpus
    for parameter, gradient in zip(
        parameters, flat.split([parameter.numel() for parameter in parameters]), strict=True
    ):
        parameter.grad = gradient.reshape(parameter.shape)
