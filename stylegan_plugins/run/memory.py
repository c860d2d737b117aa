"""The memory of a GPU that is not enough for a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stylegan_plugins.errors import RunError


def out_of_memory(args: Mapping[str, Any]) -> RunError:
    """Return the error for a run that a GPU has not enough memory for, which says what to try. args: of the training
    loop."""
    count = args["batch_gpu"]
    group = args["D_kwargs"].get("epilogue_kwargs", {}).get("mbstd_group_size") or 1
    fitting = [n for n in range(1, count) if count % n == 0 and n % min(group, n) == 0]
    least = min(group, count)  # fewer images change the minibatch standard deviation
    smaller = max((n for n in fitting if n >= least), default=None)
    advice = "smaller networks (--cbase, --cmax) or pictures (--size)"
    advice = f"--batch-gpu={smaller}, or {advice}" if smaller else advice
    return RunError(f"The GPU ran out of memory with {count} images at a time. Start the run again with {advice}.")
