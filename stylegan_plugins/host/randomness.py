"""Random numbers that the host does not see."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def own_random(name: str, seed: int, device: torch.device) -> Iterator[None]:
    """A context with random numbers of its own, of torch, this GPU, NumPy and Python; the run's go on afterwards as if
    nothing had been drawn. They are the same in all processes."""
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
