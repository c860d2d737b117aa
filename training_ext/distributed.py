"""Several processes, as in stylegan3: broadcast once, average gradients before each step."""

from __future__ import annotations

import datetime
import io
import itertools
from typing import Any

import torch

# A process may wait this long for one that reads images, fits probes or compiles. NCCL's ten minutes are too short.
# A run does not wait this long for a process that has died: see stylegan_plugins/run/processes.py.
TIMEOUT = datetime.timedelta(days=1)


def broadcast(module: torch.nn.Module) -> torch.nn.Module:
    """Give every process the first one's parameters and buffers, and return the module itself."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            torch.distributed.broadcast(tensor, src=0)
    return module


def broadcast_value(value: torch.Tensor, num_gpus: int, device: torch.device) -> torch.Tensor:
    """Return the first process's value, on the CPU."""
    if num_gpus <= 1:
        return value
    shared = value.to(device)
    torch.distributed.broadcast(shared, src=0)
    return shared.cpu()


def average_gradients(module: torch.nn.Module, num_gpus: int) -> None:
    """Average gradients over all processes, as one flat tensor. Does nothing for one process."""
    if num_gpus <= 1:
        return
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    if not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    flat /= num_gpus
    for gradient, average in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(average.view_as(gradient))


def mean_over_ranks(values: torch.Tensor, num_gpus: int) -> torch.Tensor:
    """Return the mean of values of all processes, [], without gradient."""
    total = torch.stack([values.detach().sum(), values.new_tensor(float(values.numel()))])
    if num_gpus > 1:
        torch.distributed.all_reduce(total)
    return total[0] / total[1]


def gather(values: torch.Tensor, num_gpus: int) -> torch.Tensor:
    """Return the values [N, ...] of all processes, [num_gpus N, ...], with gradient. The gradient of a process's values
    is the sum of their gradients on all processes.

    If each process computes the loss of its N items against all items, and gradients of weights are averaged over
    processes, the result equals the gradients of the mean over all items on a single process."""
    return values if num_gpus <= 1 else _Gather.apply(values)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        gathered = [torch.empty_like(values) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(gathered, values.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.contiguous()
        torch.distributed.all_reduce(gradient)
        n = len(gradient) // torch.distributed.get_world_size()
        return gradient.narrow(0, torch.distributed.get_rank() * n, n)


def agree(flags: list[bool], num_gpus: int, device: torch.device) -> list[bool]:
    """Return each flag as true if it is true on any process."""
    if num_gpus <= 1:
        return flags
    shared = torch.tensor(flags, dtype=torch.int32, device=device)
    torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
    return [bool(flag) for flag in shared.tolist()]


def gather_objects(value: Any, num_gpus: int, device: torch.device) -> list[Any]:
    """Return copies of the values of all processes, on the CPU, in the order of their ranks. A value is a tensor, a
    plain value, or a list or dictionary of these. (torch's own gather of objects needs a current CUDA device, which the
    hosts do not set.)"""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    gathered = [buffer.getvalue()] if num_gpus <= 1 else _gather_bytes(buffer.getvalue(), num_gpus, device)
    return [torch.load(io.BytesIO(data), map_location="cpu", weights_only=True) for data in gathered]


def merged(shares: list[list[torch.Tensor]]) -> torch.Tensor:
    """Merge [n, F] of each batch of each process into [N, F], in the order of a single process."""
    rounds = itertools.zip_longest(*shares)
    return torch.cat([batch for of_all in rounds for batch in of_all if batch is not None])


def _gather_bytes(data: bytes, num_gpus: int, device: torch.device) -> list[bytes]:
    gathered = []
    mine = torch.frombuffer(bytearray(data), dtype=torch.uint8).to(device)
    for rank in range(num_gpus):
        length = torch.tensor([len(data)], device=device)
        torch.distributed.broadcast(length, src=rank)
        theirs = mine if rank == torch.distributed.get_rank() else mine.new_empty([int(length)])
        torch.distributed.broadcast(theirs, src=rank)
        gathered.append(theirs.cpu().numpy().tobytes())
    return gathered
