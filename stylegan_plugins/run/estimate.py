"""An estimate of training time, measured on copies of the networks, and of the work for one image."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import torch

from stylegan_plugins.host.randomness import own_random

REGULARISATION = 1.3  # factor for the share of R1 and path lengths in an iteration
FORWARDS = 10.0  # approximate number of G's passes that take as long as the main phases
STEPS, LONG = 5, 6.0  # number of timed steps; fewer if they take more than 6 seconds, ...
ENOUGH = 0.05  # ... or if those after the first one take more than this
LONGEST = 60.0  # seconds of a step; if it would take longer, one image is timed alone


def seconds_per_image(G: Any, D: Any, batch: int) -> float:
    """Return the seconds that training takes for one real image, without the time of plug-ins and ADA.

    G, D    networks of the host on their device; they and random numbers stay as they are
    batch   images at a time"""
    device = next(D.parameters()).device
    latent, label = torch.zeros([1, G.z_dim], device=device), torch.zeros([1, G.c_dim], device=device)
    with own_random("estimate", 0, device):
        with torch.no_grad():
            forward = _timed(lambda: G(latent, label, noise_mode="const"), device, steps=2)
        few = 1 if forward * FORWARDS * batch > LONGEST else batch
        seconds = FORWARDS * forward if forward > 1 else _of_copies(G, D, few, device)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # a run may need all of it
    return seconds * REGULARISATION


def _of_copies(G: Any, D: Any, count: int, device: torch.device) -> float:
    G, D = (copy.deepcopy(network).train().requires_grad_(True) for network in (G, D))
    return _timed(lambda: _step(G, D, count), device) / count


def _step(G: Any, D: Any, count: int) -> None:
    """Run the main phases of G and D."""
    device = next(D.parameters()).device
    z, c = torch.randn([count, G.z_dim], device=device), torch.zeros([count, G.c_dim], device=device)
    D(G(z, c), c).mean().backward()
    with torch.no_grad():
        images = G(z, c)
    (D(images, c) - D(images, c)).mean().backward()


def _timed(step: Callable[[], None], device: torch.device, steps: int = STEPS) -> float:
    """Return the seconds of the fastest of some steps. The first step also prepares the others."""
    times: list[float] = []
    while len(times) < steps:
        begin = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begin)
        if sum(times) > LONG or sum(times[1:]) > ENOUGH:
            break
    return min(times)


@torch.no_grad()
def multiplications(G: Any) -> int:
    """Return the approximate number of multiplications in G's convolutions for one image."""
    found = 0

    def count(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        nonlocal found
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.ndim == 4 and isinstance(output, torch.Tensor):
            found += weight.numel() * output.shape[-1] * output.shape[-2]

    hooks = [module.register_forward_hook(count) for module in G.modules()]
    try:
        device = next(G.parameters()).device
        G(torch.zeros([1, G.z_dim], device=device), torch.zeros([1, G.c_dim], device=device), noise_mode="const")
    finally:
        for hook in hooks:
            hook.remove()
    return found
