"""Random numbers that are separate from the host's."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch


@contextmanager
def own_random(name: str, seed: int, device: torch.device) -> Iterator[None]:
    """A context with separate random numbers of torch, this GPU, NumPy and Python, the same in all processes. The run's
    random numbers continue afterwards as if nothing had been drawn."""
    seed = (seed + zlib.crc32(name.encode())) % 2**32
    states = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        # Not torch.manual_seed: it would seed all GPUs.
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.default_generators[device.index or 0].manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(states[0])
            random.setstate(states[1])


class RandomState(NamedTuple):
    """The states of torch's random numbers on the CPU and on this GPU, if there is one."""

    cpu: torch.Tensor
    gpu: torch.Tensor | None


def random_state(device: torch.device) -> RandomState:
    """Return the current states of torch's random numbers."""
    return RandomState(torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None)


@contextmanager
def drawn_again(state: RandomState, device: torch.device) -> Iterator[None]:
    """A context in which torch repeats the draws after this state. The run's random numbers continue afterwards as if
    nothing had been drawn."""
    now = random_state(device)
    _set_random_state(state, device)
    try:
        yield
    finally:
        _set_random_state(now, device)


def _set_random_state(state: RandomState, device: torch.device) -> None:
    torch.set_rng_state(state.cpu)
    if state.gpu is not None:
        torch.cuda.set_rng_state(state.gpu, device)
