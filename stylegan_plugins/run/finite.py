"""A check for values that are not finite: in weights, in heads, in the statistics of a tick."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from stylegan_plugins.host.modules import host_module
from stylegan_plugins.run.session import Session

NETWORKS = ("G", "D", "G_ema")


def not_finite(session: Session) -> list[str]:
    """Return the names of values that are not finite in this process: of networks and heads, then statistics."""
    networks = {name: getattr(session, name) for name in NETWORKS} | {"heads": session.heads}
    named = [(f"{name}.{key}", tensor) for name, network in networks.items() for key, tensor in _tensors(network)]
    counters = host_module("torch_utils.training_stats")._counters  # number, sum and sum of squares, by device
    named += [(name, value) for name, found in counters.items() for value in found.values()]
    if not named:
        return []
    finite = torch.stack([tensor.isfinite().all().to(session.device) for _, tensor in named])  # one wait for a GPU
    return [name for (name, _), good in zip(named, finite.tolist(), strict=True) if not good]


def _tensors(network: torch.nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    found = [*network.named_parameters(), *network.named_buffers()]
    return [(name, tensor.detach()) for name, tensor in found if tensor.is_floating_point()]
