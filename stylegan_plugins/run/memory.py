"""Memory of a run: an error for a full GPU, and a setting for a C library that returns freed memory too early."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from typing import Any

from stylegan_plugins.errors import RunError

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # names of mallopt's parameters in glibc's malloc.h
KEPT = 2**31 - 1  # freed bytes that are kept, and ...
MAPPED = 32 << 20  # ... size from which a block is mapped alone: the largest values that glibc takes


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors for the next ones, in this process. Other C libraries stay as they
    are.

    By default it returns the end of its heap to the system after each large tensor, and the next tensor gets it back
    page by page. That takes 15% to 30% of the time of training on a CPU (docs/inside/cost.md), and a part of the time
    to load images from memory without workers."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, MAPPED)
        mallopt(TRIM_THRESHOLD, KEPT)


def out_of_memory(args: Mapping[str, Any]) -> RunError:
    """Return the error for a run that needs more memory than a GPU has, with advice. args: of the training loop."""
    count = args["batch_gpu"]
    group = args["D_kwargs"].get("epilogue_kwargs", {}).get("mbstd_group_size") or 1
    fitting = [n for n in range(1, count) if count % n == 0 and n % min(group, n) == 0]
    least = min(group, count)  # fewer images change the minibatch standard deviation
    smaller = max((n for n in fitting if n >= least), default=None)
    advice = "smaller networks (--cbase, --cmax) or pictures (--size)"
    advice = f"--batch-gpu={smaller}, or {advice}" if smaller else advice
    return RunError(f"The GPU ran out of memory with {count} images at a time. Start the run again with {advice}.")
